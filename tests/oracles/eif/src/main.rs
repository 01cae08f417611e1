//! Builds and describes enclave images with AWS' crate aws-nitro-enclaves-image-format.
//!
//! `build OUT KERNEL COMMAND_LINE FLAGS METADATA CERTIFICATE KEY RAMDISK…` writes an image, signed
//! unless CERTIFICATE is empty, and prints its PCRs; METADATA is the JSON that the crate wants.
//! `describe FILE` prints what `nitro-cli describe-eif` would: PCRs, whether the checksum and the
//! signature are right, metadata. Both print one JSON object.

use std::env;
use std::fs::File;
use std::path::Path;

use aws_nitro_enclaves_image_format::defs::EifIdentityInfo;
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use aws_nitro_enclaves_image_format::utils::{get_pcrs, EifBuilder, PcrSignatureChecker, SignEnclaveInfo};
use serde_json::{json, Value};
use sha2::{Digest, Sha384};

fn build(arguments: &[String]) -> Result<Value, String> {
    let [out, kernel, command_line, flags, metadata, certificate, key, ramdisks @ ..] = arguments
    else {
        return Err("too few arguments".to_string());
    };
    let signer = match certificate.as_str() {
        "" => None,
        path => Some(SignEnclaveInfo::new(path, key)?),
    };
    let identity: EifIdentityInfo =
        serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let mut builder = EifBuilder::new(
        Path::new(kernel),
        command_line.clone(),
        signer,
        Sha384::new(),
        flags.parse().map_err(|_| "FLAGS is no number")?,
        identity,
    );
    for path in ramdisks {
        builder.add_ramdisk(Path::new(path));
    }
    let mut file = File::create(out).map_err(|error| error.to_string())?;
    Ok(json!({ "pcrs": builder.write_to(&mut file) }))
}

fn describe(path: &str) -> Result<Value, String> {
    let mut reader = EifReader::from_eif(path.to_string())?;
    let pcrs = get_pcrs(
        &mut reader.image_hasher,
        &mut reader.bootstrap_hasher,
        &mut reader.app_hasher,
        &mut reader.cert_hasher,
        Sha384::new(),
        reader.signature_section.is_some(),
    )?;
    let mut signature = Value::Null;
    if reader.signature_section.is_some() {
        reader.get_certificate_info(pcrs.clone())?;
        let valid = PcrSignatureChecker::from_eif(path)?.verify();
        signature = json!({ "over_pcr0": reader.sign_check, "valid": valid.is_ok() });
    }
    Ok(json!({
        "pcrs": pcrs,
        "checksum": reader.check_crc(),
        "signature": signature,
        "metadata": reader.get_metadata(),
    }))
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let answer = match arguments.split_first() {
        Some((verb, rest)) if verb == "build" => build(rest),
        Some((verb, rest)) if verb == "describe" && rest.len() == 1 => describe(&rest[0]),
        _ => Err("usage: build … | describe FILE".to_string()),
    };
    match answer {
        Ok(value) => println!("{value}"),
        Err(reason) => {
            eprintln!("{reason}");
            std::process::exit(1);
        }
    }
}
