//! Placeholders of a `format/` mount: what a mount is made of that only the mounts before it know.
//!
//! containerd reads them with Go's text/template; of that language only the calls of its four
//! functions are taken, with numbers: `{{ mount 0 }}`, `{{ overlay 0 2 }}`.

use std::borrow::Cow;

use crate::{
    error::{Context, Error, Result},
    model::Mount,
};

/// The longest text that placeholders may grow to, in bytes: many times what mount(2) takes.
const LONGEST: usize = 64 * 1024;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// What later mounts can be told about an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Earlier {
    /// What was mounted; of a `loop` mount, its device.
    pub(super) source: String,
    /// Where containerd wanted it, below its mount point.
    pub(super) target: String,
    /// Where it is mounted.
    pub(super) point: String,
}

/// Fills the placeholders in a mount's source, target and options.
///
/// # Errors
/// `InvalidArgument` with the text in question and what is wrong with it.
pub(super) fn fill(mount: &mut Mount, earlier: &[Earlier]) -> Result<()> {
    let texts = [&mut mount.source, &mut mount.target].into_iter().chain(&mut mount.options);
    for text in texts {
        if let Cow::Owned(filled) = expand(text, earlier).with_context(|| format!("{text:?}"))? {
            *text = filled;
        }
    }
    Ok(())
}

fn expand<'a>(text: &'a str, earlier: &[Earlier]) -> Result<Cow<'a, str>> {
    if !text.contains(OPEN) {
        return Ok(text.into());
    }
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((call, after)) = after.split_once(CLOSE) else {
            return Err(Error::invalid(format!("{OPEN:?} without a {CLOSE:?} after it")));
        };
        filled.push_str(before);
        filled.push_str(&answer(call, earlier)?);
        rest = after;
        if filled.len() + rest.len() > LONGEST {
            return Err(Error::invalid(format!("it grows to more than {LONGEST} bytes")));
        }
    }
    filled.push_str(rest);
    Ok(filled.into())
}

fn answer<'a>(call: &str, earlier: &'a [Earlier]) -> Result<Cow<'a, str>> {
    let words: Vec<&str> = call.split_ascii_whitespace().collect();
    let one = |number| at(number, earlier);
    match words[..] {
        ["source", number] => Ok(one(number)?.1.source.as_str().into()),
        ["target", number] => Ok(one(number)?.1.target.as_str().into()),
        ["mount", number] => Ok(one(number)?.1.point.as_str().into()),
        ["overlay", first, last] => {
            let (first, last) = (one(first)?.0, one(last)?.0);
            let points = earlier[first.min(last)..=first.max(last)].iter();
            let mut points: Vec<&str> = points.map(|each| each.point.as_str()).collect();
            // From a higher number to a lower one the order is the other way round.
            if first > last {
                points.reverse();
            }
            Ok(points.join(":").into())
        }
        [name @ ("source" | "target" | "mount"), ..] => {
            Err(Error::invalid(format!("{name:?} takes one number")))
        }
        ["overlay", ..] => Err(Error::invalid("\"overlay\" takes two numbers")),
        _ => Err(Error::invalid(format!("there is no {:?}", call.trim()))),
    }
}

/// The earlier mount with that number, and the number.
fn at<'a>(number: &str, earlier: &'a [Earlier]) -> Result<(usize, &'a Earlier)> {
    let wrong = || Error::invalid(format!("{number:?} is no mount's number"));
    let index = number.parse::<usize>().map_err(|_| wrong())?;
    let found = earlier.get(index).ok_or_else(|| {
        Error::invalid(format!("there is no mount {index}: {} came before", earlier.len()))
    })?;
    Ok((index, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn earlier(count: usize) -> Vec<Earlier> {
        let one = |n| Earlier {
            source: format!("/source/{n}"),
            target: format!("target/{n}"),
            point: format!("/at/{n}"),
        };
        (0..count).map(one).collect()
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(expand(text, &earlier(4)).unwrap(), expected, "{text}");
    }

    fn check_refused(text: &str, expected: &str) {
        let err = expand(text, &earlier(4)).unwrap_err();
        assert_eq!((err.to_string().as_str(), err.kind()), (expected, Kind::InvalidArgument));
    }

    #[test]
    fn placeholders_stand_for_what_the_earlier_mounts_are() {
        check("{{ source 0 }}", "/source/0");
        check("{{target 3}}", "target/3");
        check("upperdir={{  mount\t1 }}/upper", "upperdir=/at/1/upper");
        check("{{ mount 0 }}:{{ mount 2 }}", "/at/0:/at/2");
        check("lowerdir={{ overlay 1 3 }}", "lowerdir=/at/1:/at/2:/at/3");
        check("{{ overlay 3 1 }}", "/at/3:/at/2:/at/1");
        check("{{ overlay 2 2 }}", "/at/2");
    }

    #[test]
    fn what_has_no_placeholder_stays() {
        for text in ["", "ro", "lowerdir=/a:/b", "}} {", "{ mount 0 }"] {
            assert!(matches!(expand(text, &[]).unwrap(), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn a_bad_placeholder_is_refused_with_what_is_wrong() {
        check_refused("a{{ mount 0", "\"{{\" without a \"}}\" after it");
        check_refused("{{ mount 4 }}", "there is no mount 4: 4 came before");
        check_refused("{{ overlay 0 9 }}", "there is no mount 9: 4 came before");
        check_refused("{{ mount -1 }}", "\"-1\" is no mount's number");
        check_refused(
            "{{ mount 99999999999999999999 }}",
            "\"99999999999999999999\" is no mount's number",
        );
        check_refused("{{ mount }}", "\"mount\" takes one number");
        check_refused("{{ overlay 1 }}", "\"overlay\" takes two numbers");
        check_refused("{{ printf `%s` 1 }}", "there is no \"printf `%s` 1\"");
        check_refused("{{}}", "there is no \"\"");
        check_refused("{{ mount 0 | len }}", "\"mount\" takes one number");
    }

    #[test]
    fn what_is_filled_in_is_not_read_again() {
        let odd = Earlier { point: "/{{ mount 1 }}".into(), ..earlier(1).remove(0) };
        assert_eq!(expand("{{ mount 0 }}", &[odd]).unwrap(), "/{{ mount 1 }}");
    }

    #[test]
    fn text_does_not_grow_without_end() {
        let err = expand(&"{{ overlay 0 999 }}".repeat(40), &earlier(1000)).unwrap_err();
        assert!(err.to_string().contains("more than 65536 bytes"), "{err}");
    }

    #[test]
    fn an_error_shows_the_text_that_is_wrong() {
        let option = "lowerdir={{ mount 7 }}".to_owned();
        let mut mount = Mount { options: vec!["ro".into(), option], ..Mount::default() };
        let err = format!("{:#}", fill(&mut mount, &earlier(2)).unwrap_err());
        assert_eq!(err, "\"lowerdir={{ mount 7 }}\": there is no mount 7: 2 came before");
    }
}
