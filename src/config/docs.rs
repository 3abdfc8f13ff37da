//! `docs/settings.md`, from the table.

use std::fmt::Write as _;

use super::settings::GROUPS;
use super::table::{Group, Setting, paragraph};

const HEAD: &str = "\
# Settings

<!-- Made by `thingspace-gateway config docs` from src/config/settings.rs: change it there. -->

A flag wins over the environment, the environment over the file, and the file over the default.

| source | spelling |
| --- | --- |
| flag | the key: `--grpc.listen 127.0.0.1:0`; `true` may be left out: `--callbacks.insecure` |
| environment | `TSGW_`, then the key in capitals with `__` for the dot: `TSGW_GRPC__LISTEN` |
| file | TOML, named by `--config gateway.toml` or `TSGW_CONFIG`: `listen = \"127.0.0.1:0\"` below `[grpc]` |

* **Secrets** have no flag, because others on the machine can read the arguments of a process. Each has a
  twin that ends in `_file` and names a file with the secret; one newline at the file's end is not part of it.
  The file is read again every 2 s, or when the secret is needed, so that it can be rotated. In one source
  only one of the two may be set; in two sources the stronger one counts.
* **Durations** carry their unit: `500ms`, `25s`, `30m`, `24h`, `400d`.
* **Lists** are arrays in the file; elsewhere commas part the members.
* **Paths** that are not absolute start at the working directory.
* An unknown key or a bad value stops the start with exit code 78 and one line on standard error. An unknown
  `TSGW_` variable only warns, because Kubernetes injects some.

`config check` tries the settings without starting (with `--sandbox`: for `serve --sandbox`), `config show`
prints the ones in effect, where each came from, and no secret.
";

const TAIL: &str = "
## What must fit together

| rule | applies to |
| --- | --- |
| `thingspace.app_key`, `thingspace.app_secret`, `thingspace.uws_username` and `thingspace.uws_password` are set | `serve` |
| none of these four and no `thingspace.base_url` is set | `serve --sandbox` |
| `callbacks.username` and `callbacks.password` are both set or neither; so are the `previous_` pair, which needs the present one, and `callbacks.tls_cert_file` and `callbacks.tls_key_file` | `serve`, `serve --sandbox` |
| a `callbacks.listen` that is not loopback has `callbacks.path_secret` or `callbacks.password`, or `callbacks.insecure` is `true` | `serve` |
| `auth.mode` is written out when `thingspace.base_url` is at thingspace.verizon.com and `grpc.listen` is not loopback | `serve` |
| `grpc.max_stream_age` is less than `grpc.max_connection_age` | `serve`, `serve --sandbox` |
";

/// The text of `docs/settings.md`.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for group in GROUPS {
        text.push_str(&section(group));
    }
    text.push_str(TAIL);
    text
}

fn section(group: &Group) -> String {
    let mut text = format!("\n## {}\n\n{}\n\n", group.name, paragraph(group.doc));
    text.push_str("| key | default | |\n| --- | --- | --- |\n");
    for setting in group.settings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", row(setting));
    }
    text
}

fn row(setting: &Setting) -> String {
    let key = match setting.twin {
        Some(twin) => format!("`{}` or `{twin}`", setting.key),
        None => format!("`{}`", setting.key),
    };
    let default = match setting.default {
        None => "not set".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    };
    let label = if setting.twin.is_some() {
        "A secret"
    } else {
        "Takes"
    };
    let accepts = setting.kind.accepts();
    format!(
        "| {key} | {default} | {} {label}: {accepts}. |",
        setting.text()
    )
}
