//! Values as people type them: sizes, shares of a CPU, signals, `key=value`.

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

/// Bytes: a number with an optional `k`, `m`, `g` or `t` (powers of 1024), such as `64m`.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 10),
        Some(b'm') => (&number[..number.len() - 1], 20),
        Some(b'g') => (&number[..number.len() - 1], 30),
        Some(b't') => (&number[..number.len() - 1], 40),
        _ => (number, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(1 << shift))
        .ok_or_else(|| anyhow!("{text:?} is no size: expected a number such as 64m, 1g or 4096"))
}

/// CPUs, such as `0.5`, as microseconds of CPU in each [`shim_client::CPU_PERIOD`].
pub(crate) fn parse_cpus(text: &str) -> Result<i64> {
    // In thousandths, which are exact where a binary fraction is not.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let thousandths = match fraction.len() {
        0..=3 => format!("{whole}{fraction:0<3}").parse::<u32>().ok(),
        _ => None,
    };
    match thousandths {
        // The kernel's least quota is 1 ms, a hundredth of the period.
        Some(thousandths) if thousandths >= 10 => Ok(i64::from(thousandths) * 100),
        _ => bail!("{text:?} is no number of CPUs: expected 0.01 or more, such as 0.5 or 2"),
    }
}

/// A signal by number or by name, with or without `SIG`; `RTMIN+1` too.
pub(crate) fn parse_signal(text: &str) -> Result<u32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => real_time(name).or_else(|| {
            let signal = format!("SIG{name}").parse::<Signal>().ok()?;
            u32::try_from(signal as i32).ok()
        }),
    };
    number
        .filter(|number| (0..=64).contains(number))
        .with_context(|| format!("no signal {text:?}: expected a name such as TERM, or a number"))
}

/// Real-time signals by their distance from either end, as libc counts them (34 to 64).
fn real_time(name: &str) -> Option<u32> {
    let distance = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u32>().ok().filter(|distance| *distance <= 30),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(34 + distance(rest, '+')?);
    }
    Some(64 - distance(name.strip_prefix("RTMAX")?, '-')?)
}

/// Splits `key=value`; the key is not empty.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("{text:?}: expected key=value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("1k", 1024), ("64m", 64 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1.5m", "64 m", "99999999999t"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_become_a_quota() {
        for (text, quota) in [("0.5", 50_000), ("2", 200_000), ("1.25", 125_000), ("0.01", 1000)] {
            assert_eq!(parse_cpus(text).unwrap(), quota, "{text}");
        }
        for bad in ["", "0", "0.001", "-1", "x", "1.2345", "1.x"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("0", 0),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIG", "NOSUCH", "65", "-1", "RTMIN-1", "RTMAX-40"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_need_a_key() {
        assert_eq!(parse_pair("A=b=c").unwrap(), ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(parse_pair("A=").unwrap(), ("A".to_owned(), String::new()));
        assert!(parse_pair("=x").is_err() && parse_pair("x").is_err());
    }
}
