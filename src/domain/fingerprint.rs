//! What a key stands for: the content of a change, in one canonical form.

use super::{
    change::{ChangeRequest, OperationPayload, SentDevice},
    newtypes::ServicePlan,
    place_of_use::PrimaryPlaceOfUse,
};

impl ChangeRequest {
    /// What a key stands for, as bytes: everything in the message but
    /// `validate_only`, the key and the client references, devices in any
    /// order. Version 1; each text is preceded by its length, so that no two
    /// contents share their bytes.
    pub fn fingerprint_input(&self) -> Vec<u8> {
        let mut out = b"thingspace.gateway/content/1".to_vec();
        put(&mut out, self.account.as_str());
        put(&mut out, self.service_plan.as_str());
        let mut devices: Vec<Vec<u8>> = self
            .devices
            .iter()
            .map(SentDevice::fingerprint_input)
            .collect();
        match &self.payload {
            OperationPayload::EsimPlan => put(&mut out, "esim"),
            OperationPayload::FiveGBiPlan {
                current_service_plan,
                places_of_use: places,
            } => {
                put(&mut out, "five_g_bi");
                put(
                    &mut out,
                    current_service_plan
                        .as_ref()
                        .map_or("", ServicePlan::as_str),
                );
                for (device, place) in devices.iter_mut().zip(places) {
                    put_place(device, place);
                }
            }
        }
        devices.sort_unstable();
        for device in devices {
            put_bytes(&mut out, &device);
        }
        out
    }
}

impl SentDevice {
    fn fingerprint_input(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for id in self.sorted_ids() {
            put(&mut out, id.kind().as_str());
            put(&mut out, id.id());
        }
        out
    }
}

fn put_place(out: &mut Vec<u8>, place: &PrimaryPlaceOfUse) {
    let (address, name) = (&place.address, &place.customer_name);
    for text in [
        &address.address_line1,
        &address.address_line2,
        &address.city,
        &address.state,
        &address.zip,
        &address.zip4,
        &address.country,
        &name.title,
        &name.first_name,
        &name.middle_name,
        &name.last_name,
        &name.suffix,
    ] {
        put(out, text);
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}
