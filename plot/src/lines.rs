//! Lines over an axis of numbers.

use crate::Labels;
use crate::frame::{Frame, colour, count, number, scale};

/// With more points than these there are no marks on them.
const MOST_MARKS: usize = 30;

/// Values one after the other.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Left to right.
    pub points: Vec<(f64, f64)>,
}

/// Draws lines over a common axis that starts at zero, as the other one does.
#[must_use]
pub fn lines(labels: Labels<'_>, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let last = all().map(|(x, _)| x).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let mut frame = Frame::new(labels, &names, all().map(|(_, y)| y).fold(0.0, f64::max));
    let (left, wide) = (frame.left, frame.right - frame.left);
    let across = |x: f64| left + x / last * wide;
    let (step, _) = scale(last);
    for mark in 0..=count(last, step) {
        let value = f64::from(mark) * step;
        let (x, base) = (across(value), frame.base);
        frame.rule((x, base), (x, base + 5.0), 0.6);
        frame.text((x, base + 18.0), "middle", "", &number(value));
    }
    for (at, line) in lines.iter().enumerate() {
        let points: Vec<(f64, f64)> =
            line.points.iter().map(|(x, y)| (across(*x), frame.height_of(*y))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (path, colour) = (path.join(" "), colour(at));
        frame.add(format_args!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" \
             stroke-linejoin=\"round\" points=\"{path}\"/>"
        ));
        for (x, y) in points.iter().filter(|_| points.len() <= MOST_MARKS) {
            frame.add(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{colour}\"/>"
            ));
        }
    }
    frame.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_and_named() {
        let line =
            |name: &str| Line { name: name.to_owned(), points: vec![(0.0, 1.0), (9.0, 3.0)] };
        let labels = Labels { title: "t", below: "cycles", unit: "KiB" };
        let svg = lines(labels, &[line("one"), line("two")]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 4);
        for word in [">one</text>", ">two</text>", ">cycles</text>", ">KiB</text>"] {
            assert!(svg.contains(word), "{word}: {svg}");
        }
    }
}
