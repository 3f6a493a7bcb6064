//! From a user's name to numbers, by the image's own passwd and group files.

use anyhow::{Context, Result, bail};

use crate::spec::User;

/// Resolves `user`, `user:group`, each a name or a number, by the texts of the two files.
///
/// A number needs no entry; one that has an entry gets its groups.
pub fn resolve_user(text: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group_name)) => (user, Some(group_name)),
        None => (text, None),
    };
    let entry = lines(passwd).find(|fields| {
        fields.len() >= 4 && (fields[0] == user || (is_number(user) && fields[2] == user))
    });
    let (name, uid, entry_gid) = match entry {
        Some(fields) => (fields[0], number(fields[2])?, number(fields[3])?),
        None => {
            let Ok(uid) = number(user) else {
                bail!("no user {user:?} in /etc/passwd of the root filesystem");
            };
            (user, uid, 0)
        }
    };
    let gid = match group_name {
        None => entry_gid,
        Some(name) => group_id(name, group)?,
    };
    // The primary group is among them: a process that could drop it for good would pass a file's
    // "all but this group" permissions.
    let mut additional_gids = vec![gid];
    if group_name.is_none() {
        additional_gids.extend(supplementary(name, group).filter(|other| *other != gid));
    }
    Ok(User { uid, gid, additional_gids })
}

fn group_id(name: &str, group: &str) -> Result<u32> {
    match lines(group).find(|fields| fields.len() >= 3 && fields[0] == name) {
        Some(fields) => number(fields[2]),
        None => match number(name) {
            Ok(gid) => Ok(gid),
            Err(_) => bail!("no group {name:?} in /etc/group of the root filesystem"),
        },
    }
}

/// The groups that list the user as a member.
fn supplementary(name: &str, group: &str) -> impl Iterator<Item = u32> {
    lines(group)
        .filter(move |fields| {
            fields.len() >= 4 && fields[3].split(',').any(|member| member == name)
        })
        .filter_map(|fields| number(fields[2]).ok())
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.trim().split(':').collect())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number of digits alone. The last one of 32 bits means "no id" to the kernel (setresuid(2)).
fn number(text: &str) -> Result<u32> {
    let number = text.parse().ok().filter(|id| is_number(text) && *id != u32::MAX);
    number.with_context(|| format!("{text:?} is no user or group number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:100::/home:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,me\naudio:x:63:me\n";

    fn user(uid: u32, gid: u32, more: &[u32]) -> User {
        User { uid, gid, additional_gids: more.to_vec() }
    }

    #[test]
    fn names_and_numbers_resolve() {
        for (text, expected) in [
            ("root", user(0, 0, &[0, 10])),
            ("me", user(1000, 100, &[100, 10, 63])),
            ("1000", user(1000, 100, &[100, 10, 63])),
            ("4242", user(4242, 0, &[0])),
            ("me:wheel", user(1000, 10, &[10])),
            ("me:7", user(1000, 7, &[7])),
            ("4242:7", user(4242, 7, &[7])),
        ] {
            assert_eq!(resolve_user(text, PASSWD, GROUP).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        for bad in ["nobody", "me:nogroup", "", "me:"] {
            assert!(resolve_user(bad, PASSWD, GROUP).is_err(), "{bad}");
        }
    }

    #[test]
    fn user_number_is_made_of_digits_alone() {
        for bad in ["+0", "-1", " 0", "0 ", "0x0", "4294967295", "4294967296", "1e3", "0\n", "٣"] {
            assert!(resolve_user(bad, PASSWD, GROUP).is_err(), "{bad:?}");
            assert!(resolve_user(&format!("me:{bad}"), PASSWD, GROUP).is_err(), "{bad:?}");
        }
        // A name of digits is a name first, and a line without a number is nobody's.
        let passwd = "7:x:1234:7::/:\nodd:x::0::/:\nsigned:x:+0:0::/:\n";
        assert_eq!(resolve_user("7", passwd, "").unwrap().uid, 1234);
        assert!(resolve_user("", passwd, "").is_err());
        assert!(resolve_user("signed", passwd, "").is_err());
    }
}
