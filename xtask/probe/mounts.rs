//! The mounts, by their place: what is mounted, how, and who hears of changes.

use std::{collections::HashMap, fs, iter};

use serde_json::{Map, Value, json};

/// proc_pid_mountinfo(5). A place that is covered twice is `/x#2`.
pub(crate) fn all() -> Value {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else { return Value::Null };
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    // The numbers are in the order of making; what covers something stands on it.
    let above: HashMap<&str, &str> = lines.iter().map(|fields| (fields[0], fields[1])).collect();
    lines.sort_by_key(|fields| {
        iter::successors(Some(fields[0]), |id| above.get(id).copied()).take(above.len() + 1).count()
    });
    let mut all = Map::new();
    let mut places: Vec<String> = Vec::new();
    for fields in lines {
        let Some((place, mount)) = one(&fields.join(" ")) else { continue };
        let covered = places.iter().filter(|known| **known == place).count();
        let name = if covered == 0 { place.clone() } else { format!("{place}#{}", covered + 1) };
        all.insert(name, mount);
        places.push(place);
    }
    all.into()
}

/// `ID PARENT MAJ:MIN ROOT PLACE OPTIONS TAGS… - TYPE SOURCE SUPER`
fn one(line: &str) -> Option<(String, Value)> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let (root, place, options) = (left.get(3)?, left.get(4)?, left.get(5)?);
    // A peer group's number is another one each time.
    let tags = left[6..].iter().map(|tag| tag.split(':').next().unwrap_or(tag));
    let mut right = right.splitn(3, ' ');
    let (kind, source, above) = (right.next()?, right.next()?, right.next()?);
    let mount = json!({
        "root": root,
        "type": kind,
        "source": source,
        "options": options,
        "super": sorted(above),
        "propagation": tags.collect::<Vec<_>>().join(" "),
    });
    Some(((*place).to_owned(), mount))
}

fn sorted(options: &str) -> String {
    let mut options: Vec<&str> = options.split(',').collect();
    options.sort_unstable();
    options.join(",")
}
