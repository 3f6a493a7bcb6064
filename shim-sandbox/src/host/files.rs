//! The files that every container of a pod has of it: hosts, hostname, resolv.conf.
//!
//! Where containerd makes sandboxes by itself it writes them on the host. Through the Sandbox API nobody
//! does: they are made here from CRI's description, and written in the guest.

use std::collections::HashMap;

use shim_core::{Error, Result};
use shim_protos::{cri::PodSandboxConfig, guest::Interface};

/// The longest name of a host, sethostname(2).
const LONGEST: usize = 64;

/// Makes the files by their names.
///
/// # Errors
/// `InvalidArgument` for a description that would put other lines in than it says.
pub fn of_pod(
    config: &PodSandboxConfig,
    interfaces: &[Interface],
) -> Result<HashMap<String, Vec<u8>>> {
    let hostname = hostname(config)?;
    let files = [
        ("hostname", format!("{hostname}\n")),
        ("hosts", hosts(&hostname, interfaces)),
        ("resolv.conf", resolv_conf(config)?),
    ];
    Ok(files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into())
}

/// The name of the pod's host: what is asked for, else the pod's.
///
/// # Errors
/// `InvalidArgument` for one that the kernel does not take.
pub fn hostname(config: &PodSandboxConfig) -> Result<String> {
    let pods = config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let name = if config.hostname.is_empty() { pods } else { &config.hostname };
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !is_plain || name.len() > LONGEST {
        return Err(Error::invalid(format!("hostname {name:?} is no name of a host")));
    }
    Ok(if name.is_empty() { "sandbox".to_owned() } else { name.to_owned() })
}

/// hosts(5).
fn hosts(hostname: &str, interfaces: &[Interface]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in interfaces.iter().flat_map(|interface| &interface.addresses) {
        let address = address.split_once('/').map_or(address.as_str(), |(address, _)| address);
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

/// resolv.conf(5).
fn resolv_conf(config: &PodSandboxConfig) -> Result<String> {
    let mut text = String::new();
    let Some(dns) = config.dns_config.as_ref() else { return Ok(text) };
    for (field, words) in
        [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)]
    {
        if let Some(word) = words.iter().find(|w| w.is_empty() || w.contains(char::is_whitespace)) {
            return Err(Error::invalid(format!("dns_config.{field}: {word:?} is not one word")));
        }
    }
    // In the order in which containerd writes them on the host.
    let line = |keyword: &str, words: &[String]| match words {
        [] => String::new(),
        words => format!("{keyword} {}\n", words.join(" ")),
    };
    text.push_str(&line("search", &dns.searches));
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.push_str(&line("options", &dns.options));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use shim_protos::{
        cri::{DNSConfig, PodSandboxMetadata},
        protobuf::MessageField,
    };

    use super::*;

    fn pod() -> PodSandboxConfig {
        let metadata = PodSandboxMetadata { name: "web".to_owned(), ..Default::default() };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let dns = DNSConfig {
            servers: words("10.0.0.1 10.0.0.2"),
            searches: words("a.local b.local"),
            options: words("ndots:5"),
            ..Default::default()
        };
        PodSandboxConfig {
            metadata: MessageField::some(metadata),
            dns_config: MessageField::some(dns),
            ..Default::default()
        }
    }

    #[test]
    fn files_say_what_the_pod_is() {
        let interface = Interface {
            addresses: vec!["10.9.0.2/24".to_owned(), "fd00::2/64".to_owned()],
            ..Default::default()
        };
        let files = of_pod(&pod(), &[interface]).unwrap();
        assert_eq!(files["hostname"], b"web\n");
        let resolv =
            "search a.local b.local\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n";
        assert_eq!(files["resolv.conf"], resolv.as_bytes());
        let hosts = String::from_utf8(files["hosts"].clone()).unwrap();
        assert!(hosts.ends_with("10.9.0.2\tweb\nfd00::2\tweb\n"), "{hosts}");
    }

    #[test]
    fn a_word_with_a_line_in_it_is_refused() {
        let mut config = pod();
        config.dns_config.as_mut().unwrap().searches = vec!["a\nnameserver 6.6.6.6".to_owned()];
        assert!(of_pod(&config, &[]).unwrap_err().to_string().contains("searches"));
        config.hostname = "a b".to_owned();
        assert!(of_pod(&config, &[]).unwrap_err().to_string().contains("a b"));
    }

    #[test]
    fn a_pod_without_a_name_has_one() {
        assert_eq!(hostname(&PodSandboxConfig::default()).unwrap(), "sandbox");
    }
}
