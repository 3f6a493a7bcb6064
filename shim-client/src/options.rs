//! Runtime options: what an administrator configures for a runtime, as containerd sends it.
//!
//! A runc-like shim gets a message with a field for each option. For every other runtime CRI has
//! no message and sends the options as a TOML text; shimctl does as CRI does.

use std::fmt::Write;

use anyhow::{Context, Result, anyhow};
use shim_protos::protobuf::Message;
use shim_protos::{Any, runc, runtimeoptions};

use crate::binary::ShimBinary;

/// Packs options for that shim; none without any.
///
/// Keys are those of containerd's config file, such as `BinaryName` and `SystemdCgroup`.
pub fn runtime_options(binary: &ShimBinary, options: &[(String, String)]) -> Result<Option<Any>> {
    if options.is_empty() {
        return Ok(None);
    }
    let (type_url, value) = if binary.takes_runc_options() {
        ("containerd.runc.v1.Options", runc_message(options)?.write_to_bytes())
    } else {
        ("runtimeoptions.v1.Options", toml_message(options).write_to_bytes())
    };
    let value = value.context("encode runtime options")?;
    Ok(Some(Any { type_url: type_url.to_owned(), value, ..Any::default() }))
}

fn runc_message(options: &[(String, String)]) -> Result<runc::Options> {
    let mut message = runc::Options::default();
    for (key, value) in options {
        set_runc_option(&mut message, key, value)
            .with_context(|| format!("runtime option {key}={value}"))?;
    }
    Ok(message)
}

fn set_runc_option(message: &mut runc::Options, key: &str, value: &str) -> Result<()> {
    match key {
        "NoPivotRoot" => message.no_pivot_root = value.parse()?,
        "NoNewKeyring" => message.no_new_keyring = value.parse()?,
        "ShimCgroup" => value.clone_into(&mut message.shim_cgroup),
        "IoUid" => message.io_uid = value.parse()?,
        "IoGid" => message.io_gid = value.parse()?,
        "BinaryName" => value.clone_into(&mut message.binary_name),
        "Root" => value.clone_into(&mut message.root),
        "SystemdCgroup" => message.systemd_cgroup = value.parse()?,
        "CriuImagePath" => value.clone_into(&mut message.criu_image_path),
        "CriuWorkPath" => value.clone_into(&mut message.criu_work_path),
        _ => {
            return Err(anyhow!(
                "no such option of runc shims; there are BinaryName, Root, SystemdCgroup, \
                 ShimCgroup, IoUid, IoGid, NoPivotRoot, NoNewKeyring, CriuImagePath, CriuWorkPath"
            ));
        }
    }
    Ok(())
}

fn toml_message(options: &[(String, String)]) -> runtimeoptions::Options {
    let mut message = runtimeoptions::Options::default();
    let mut body = String::new();
    for (key, value) in options {
        match key.as_str() {
            // These two are fields of the message itself.
            "TypeUrl" => value.clone_into(&mut message.type_url),
            "ConfigPath" => value.clone_into(&mut message.config_path),
            // Writing to a String cannot fail.
            _ => drop(writeln!(body, "{key} = {}", toml_value(value))),
        }
    }
    message.config_body = body.into_bytes();
    message
}

/// Booleans and whole numbers as such, all else as a string.
fn toml_value(value: &str) -> String {
    if value.parse::<bool>().is_ok() || value.parse::<i64>().is_ok() {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn pack(file: &str, options: &[(&str, &str)]) -> Result<Option<Any>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        // A copy, not a link: resolving follows links, and the name decides.
        std::fs::copy("/bin/true", &path).unwrap();
        symlink(&path, dir.path().join("link")).unwrap();
        let binary = ShimBinary::resolve(dir.path().join("link").to_str().unwrap()).unwrap();
        let owned: Vec<_> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        runtime_options(&binary, &owned)
    }

    #[test]
    fn a_runc_shim_gets_its_message() {
        let options = [("BinaryName", "crun"), ("SystemdCgroup", "true"), ("IoUid", "7")];
        let any = pack("containerd-shim-runc-v2", &options).unwrap().unwrap();
        assert_eq!(any.type_url, "containerd.runc.v1.Options");
        let message = runc::Options::parse_from_bytes(&any.value).unwrap();
        assert_eq!(message.binary_name, "crun");
        assert!(message.systemd_cgroup);
        assert_eq!(message.io_uid, 7);
        assert!(pack("containerd-shim-runc-v2", &[("Nope", "1")]).is_err());
        assert!(pack("containerd-shim-runc-v2", &[("SystemdCgroup", "maybe")]).is_err());
    }

    #[test]
    fn any_other_gets_toml() {
        let options = [("BinaryName", "a \"b\"\n"), ("SystemdCgroup", "true"), ("N", "3")];
        let any = pack("containerd-shim-native-v2", &options).unwrap().unwrap();
        assert_eq!(any.type_url, "runtimeoptions.v1.Options");
        let message = runtimeoptions::Options::parse_from_bytes(&any.value).unwrap();
        assert_eq!(
            String::from_utf8(message.config_body).unwrap(),
            "BinaryName = \"a \\\"b\\\"\\u000A\"\nSystemdCgroup = true\nN = 3\n"
        );
    }

    #[test]
    fn no_options_are_no_message() {
        assert_eq!(pack("containerd-shim-runc-v2", &[]).unwrap(), None);
    }
}
