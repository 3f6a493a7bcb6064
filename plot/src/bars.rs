//! Bars in groups, each with a whisker if it has one.

use crate::Labels;
use crate::frame::{Frame, GREY, colour, number, width};

/// Of a group's room, what its bars fill.
const FILLED: f64 = 0.78;

/// A bar is not wider, however few there are.
const WIDEST: f64 = 56.0;

/// Bars side by side, one for each series.
#[derive(Clone, Debug)]
pub struct Group {
    /// Below them.
    pub name: String,
    /// In the order of the series.
    pub bars: Vec<Bar>,
}

/// A value and how far it reached.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// How high the bar is.
    pub value: f64,
    /// How far the whisker goes up, such as to a 95th percentile.
    pub whisker: Option<f64>,
}

/// Draws groups of bars over an axis that starts at zero.
///
/// Each bar has its value as a hint, and above it if there is room for all of them.
#[must_use]
pub fn bars<S: AsRef<str>>(labels: Labels<'_>, series: &[S], groups: &[Group]) -> String {
    let all = || groups.iter().flat_map(|group| &group.bars);
    let most = all().map(|bar| bar.value.max(bar.whisker.unwrap_or(0.0))).fold(0.0, f64::max);
    let mut frame = Frame::new(labels, series, most);
    let room = (frame.right - frame.left) / float(groups.len().max(1));
    let wide = (room * FILLED / float(series.len().max(1))).min(WIDEST);
    // Some with their value and some without would look odd.
    let values_fit = all().all(|bar| fits(&number(bar.value), wide));
    for (at, group) in groups.iter().enumerate() {
        let middle = frame.left + (float(at) + 0.5) * room;
        let first = middle - wide * float(group.bars.len()) / 2.0;
        for (number, (bar, name)) in group.bars.iter().zip(series).enumerate() {
            let place = (first + float(number) * wide, wide);
            let hint = hint(name.as_ref(), *bar, labels.unit);
            let above = draw(&mut frame, place, *bar, colour(number), &hint);
            if values_fit {
                value_above(&mut frame, place, above, bar.value);
            }
        }
        name_below(&mut frame, middle, room, &group.name);
    }
    frame.finish()
}

/// Says how high up it reaches.
fn draw(frame: &mut Frame, (x, wide): (f64, f64), bar: Bar, colour: &str, hint: &str) -> f64 {
    let gap = (wide * 0.08).min(2.0);
    let top = frame.height_of(bar.value);
    frame.rect((x + gap, top), (wide - 2.0 * gap, frame.base - top), colour, hint);
    let Some(whisker) = bar.whisker.filter(|whisker| *whisker > bar.value) else { return top };
    let (middle, arm, up) = (x + wide / 2.0, (wide * 0.2).min(6.0), frame.height_of(whisker));
    frame.add(format_args!(
        "<path d=\"M{middle:.1} {top:.1}V{up:.1}M{:.1} {up:.1}H{:.1}\" stroke=\"{GREY}\" \
         stroke-width=\"1.2\" fill=\"none\"/>",
        middle - arm,
        middle + arm
    ));
    up
}

fn value_above(frame: &mut Frame, (x, wide): (f64, f64), above: f64, value: f64) {
    let at = (x + wide / 2.0, above - 4.0);
    frame.text(at, "middle", "font-size=\"10\"", &number(value));
}

/// Whether a bar is as wide as its value is in small letters.
fn fits(value: &str, wide: f64) -> bool {
    width(value) * 0.85 <= wide
}

/// On two lines where one is too narrow.
fn name_below(frame: &mut Frame, middle: f64, room: f64, name: &str) {
    let base = frame.base;
    match name.rsplit_once(' ').filter(|_| width(name) > room) {
        Some((upper, lower)) => {
            frame.text((middle, base + 18.0), "middle", "", upper);
            frame.text((middle, base + 32.0), "middle", "", lower);
        }
        None => frame.text((middle, base + 18.0), "middle", "", name),
    }
}

fn hint(name: &str, bar: Bar, unit: &str) -> String {
    let blank = if unit.is_empty() { "" } else { " " };
    let value = format!("{name}: {}{blank}{unit}", number(bar.value));
    match bar.whisker {
        Some(whisker) => format!("{value}, p95 {}{blank}{unit}", number(whisker)),
        None => value,
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_height_its_whisker_and_its_hint() {
        let bar = |value, whisker| Bar { value, whisker };
        let groups = [
            Group { name: "create".to_owned(), bars: vec![bar(5.0, Some(8.0)), bar(10.0, None)] },
            Group {
                name: "start".to_owned(),
                bars: vec![bar(1.0, Some(1.0)), bar(2.0, Some(4.0))],
            },
        ];
        let labels = Labels { title: "life", below: "", unit: "ms" };
        let svg = bars(labels, &["a", "b"], &groups);
        // One rectangle a bar, and one a name of the legend.
        assert_eq!(svg.matches("<rect").count(), 6);
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("<title>a: 5 ms, p95 8 ms</title>"), "{svg}");
        assert!(svg.contains("<title>b: 10 ms</title>"), "{svg}");
    }

    #[test]
    fn a_long_name_stands_on_two_lines() {
        let bars_of = |name: &str| Group {
            name: name.to_owned(),
            bars: vec![Bar { value: 1.0, whisker: None }],
        };
        let groups: Vec<Group> = (0..12).map(|_| bars_of("terminal time")).collect();
        let svg = bars(Labels { title: "", below: "", unit: "" }, &["a"], &groups);
        assert_eq!(svg.matches(">terminal</text>").count(), 12);
        assert_eq!(svg.matches(">time</text>").count(), 12);
    }
}
