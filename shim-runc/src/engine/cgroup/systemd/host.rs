//! Which systemd makes our units, the machine's or a user's, and where it listens.

use std::{env, ffi::OsString, fs, path::PathBuf};

use super::{
    bus::{Address, Peer},
    unit::Owner,
};

impl Owner {
    /// Root has the machine's; everybody else their own, and so has root of a user namespace.
    pub(crate) fn of_host() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self::of(nix::unistd::geteuid().as_raw(), &map)
    }

    /// By the user's id, and the map of our user namespace, user_namespaces(7).
    fn of(uid: u32, map: &str) -> Self {
        let outside = map.lines().find_map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
            let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
            let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
            outside.checked_add(offset)
        });
        match outside.unwrap_or(uid) {
            0 => Self::System,
            uid => Self::User(uid),
        }
    }
}

/// Where to ask: systemd itself first, which answers on a host without a message bus, or with one
/// that is busy, too.
pub(super) fn addresses() -> Vec<Address> {
    of(Owner::of_host(), |name| env::var_os(name))
}

fn of(owner: Owner, variable: impl Fn(&str) -> Option<OsString>) -> Vec<Address> {
    let given = |name| variable(name)?.to_str().and_then(socket);
    let (systemd, bus) = match owner {
        Owner::System => {
            let bus = given("DBUS_SYSTEM_BUS_ADDRESS");
            let usual = || PathBuf::from("/run/dbus/system_bus_socket");
            (PathBuf::from("/run/systemd/private"), bus.unwrap_or_else(usual))
        }
        Owner::User(uid) => {
            let own = variable("XDG_RUNTIME_DIR").filter(|own| !own.is_empty());
            let own = own.map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
            let bus = given("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| own.join("bus"));
            (own.join("systemd/private"), bus)
        }
    };
    let systemd = Address { path: systemd, peer: Peer::Systemd };
    vec![systemd, Address { path: bus, peer: Peer::Bus }]
}

/// The first path of a unix socket in a list of D-Bus addresses, `unix:path=/run/bus,guid=…;…`.
fn socket(addresses: &str) -> Option<PathBuf> {
    let of = |address: &str| {
        let keys = address.strip_prefix("unix:")?;
        let path = keys.split(',').find_map(|key| key.strip_prefix("path="))?;
        plain(path).map(PathBuf::from)
    };
    addresses.split(';').find_map(of)
}

/// A value without the escapes of addresses, `%2f` for a slash.
fn plain(value: &str) -> Option<String> {
    let mut parts = value.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_machines_systemd_and_others_their_own() {
        let everything = "         0          0 4294967295\n";
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        for (uid, map, owner) in [
            (0, everything, Owner::System),
            (1000, everything, Owner::User(1000)),
            (0, rootless, Owner::User(1000)),
            (5, rootless, Owner::User(100_004)),
            (0, "", Owner::System),
        ] {
            assert_eq!(Owner::of(uid, map), owner);
        }
    }

    #[test]
    fn systemd_itself_is_asked_before_a_bus() {
        let paths = |owner, set: &[(&str, &str)]| {
            let variable = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            };
            let all = of(owner, variable).into_iter();
            all.map(|one| one.path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(Owner::System, &[]), "/run/systemd/private /run/dbus/system_bus_socket");
        assert_eq!(
            paths(Owner::System, &[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/a%20b,guid=1")]),
            "/run/systemd/private /a b"
        );
        assert_eq!(paths(Owner::User(7), &[]), "/run/user/7/systemd/private /run/user/7/bus");
        assert_eq!(
            paths(
                Owner::User(7),
                &[
                    ("XDG_RUNTIME_DIR", "/x"),
                    ("DBUS_SESSION_BUS_ADDRESS", "tcp:host=h;unix:path=/y"),
                ]
            ),
            "/x/systemd/private /y"
        );
    }

    #[test]
    fn addresses_without_a_path_are_passed_over() {
        for odd in ["", "unix:abstract=/x", "unix:path=/%", "unix:path=/%zz", "tcp:path=/x"] {
            assert_eq!(socket(odd), None, "{odd}");
        }
    }
}
