//! Writes the files with which a gateway and its clients are secured: certificates, a key set, a token and a policy.

use std::{
    env, fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

const POLICY: &str = r#"
[[caller]]
name = "bench"
identities = ["spiffe://bench.example/load", "jwt:load"]
[[caller.allow]]
permissions = ["change", "watch", "list"]
accounts = ["0000123456-*"]
"#;
/// Lifetime of the token, in seconds.
const LIFETIME: u64 = 24 * 60 * 60;

fn main() -> Result<(), Failure> {
    let directory = PathBuf::from(env::args().nth(1).ok_or("usage: credentials DIRECTORY")?);
    let write = |name: &str, content: &str| fs::write(directory.join(name), content);

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write("ca.pem", &ca.pem())?;
    let server = SanType::DnsName("localhost".try_into()?);
    let client = SanType::URI("spiffe://bench.example/load".try_into()?);
    for (name, san, usage) in [
        ("server", server, ExtendedKeyUsagePurpose::ServerAuth),
        ("client", client, ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![san];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        write(&format!("{name}.pem"), &params.signed_by(&key, &ca)?.pem())?;
        write(&format!("{name}.key"), &key.serialize_pem())?;
    }

    let key = KeyPair::generate()?;
    // An uncompressed point: 4, x, y.
    let (x, y) = key.public_key_raw().get(1..).ok_or("not a point")?.split_at(32);
    let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "bench", "x": x, "y": y });
    write("jwks.json", &json!({ "keys": [jwk] }).to_string())?;
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("bench".to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims =
        json!({ "iss": "bench", "aud": "gateway", "sub": "load", "exp": now + LIFETIME });
    let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?;
    write("token", &encode(&header, &claims, &key)?)?;
    write("policy.toml", POLICY)?;
    Ok(())
}
