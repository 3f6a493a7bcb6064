//! Network interfaces that move into a container.

use std::process::Command;

use serde_json::json;
use shim_core::Container;

use super::cases;
use crate::{Bench, bundle::Made};

/// Two interfaces of the host, joined by a cable. Dropped, they go, wherever they are.
struct Pair {
    one: String,
    other: String,
}

impl Pair {
    fn new() -> Self {
        let number = std::process::id();
        let (one, other) = (format!("sa{number}"), format!("sb{number}"));
        ip(&["link", "add", &one, "type", "veth", "peer", "name", &other]);
        let pair = Self { one, other };
        ip(&["address", "add", "192.0.2.7/24", "dev", &pair.one]);
        ip(&["address", "add", "2001:db8::7/64", "dev", &pair.one, "nodad"]);
        pair
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // With a container's end both have gone already.
        let _ = Command::new("ip").args(["link", "delete", &self.other]).output();
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn is_on_host(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

cases! {
    async fn an_interface_moves_with_its_addresses(bench: &Bench) {
        for users in [false, true] {
            let pair = Pair::new();
            let script = "grep -c : /proc/net/dev; cat /sys/class/net/uplink/flags; \
                cat /proc/net/if_inet6 /proc/net/fib_trie";
            let made = Made::script(script).with(|spec| {
                spec["linux"]["netDevices"] = json!({ &pair.one: { "name": "uplink" } });
                if users {
                    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.push(json!({ "type": "user" }));
                    let all = json!([{ "containerID": 0, "hostID": 0, "size": 70000 }]);
                    spec["linux"]["uidMappings"] = all.clone();
                    spec["linux"]["gidMappings"] = all;
                }
            });
            let mut running = made.create(bench).await.unwrap();
            assert!(!is_on_host(&pair.one) && is_on_host(&pair.other));
            running.container.start().await.unwrap();
            running.wait().await;
            let printed = running.printed();
            running.container.delete().await.unwrap();
            // Its flags are up, broadcast and multicast.
            assert!(printed.starts_with("2\n0x1003\n"), "{printed}");
            assert!(printed.contains("20010db8000000000000000000000007"), "{printed}");
            assert!(printed.contains("|-- 192.0.2.7"), "{printed}");
        }
    }

    async fn an_interface_that_is_not_there_is_named(bench: &Bench) {
        let made = Made::script("true")
            .with(|spec| spec["linux"]["netDevices"] = json!({ "nowhere0": {} }));
        let refused = made.refusal(bench).await;
        assert!(refused.contains("move network interface nowhere0") && refused.contains("ENODEV"), "{refused}");
        let made = made.with(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
        });
        let refused = made.refusal(bench).await;
        assert!(refused.contains("needs a network namespace"), "{refused}");
    }
}
