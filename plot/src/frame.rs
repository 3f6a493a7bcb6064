//! What all plots share: the size, the axis at the left with its grid, the legend.

use std::fmt::{Display, Write};

use crate::Labels;

/// Width of the whole, in user units, which are pixels unless it is scaled.
pub(crate) const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 56.0;

/// Letters of the usual size are about this wide.
pub(crate) const LETTER: f64 = 6.5;

/// Text, and with less of it the grid.
pub(crate) const GREY: &str = "#808890";
const COLOURS: [&str; 6] = ["#3b82f6", "#e07b22", "#1f9d6b", "#b45ad0", "#d64550", "#8f8a1e"];

/// About how many steps an axis is divided into.
const STEPS: f64 = 5.0;

/// The colour of the series with that number.
pub(crate) fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

/// A plot as it is drawn.
#[derive(Debug)]
pub(crate) struct Frame {
    svg: String,
    /// Where the area of the plot begins and ends.
    pub(crate) left: f64,
    pub(crate) right: f64,
    top: f64,
    pub(crate) base: f64,
    /// The value at the top.
    most: f64,
}

impl Frame {
    /// Draws all but what is measured; `most` is the greatest value there will be.
    pub(crate) fn new<S: AsRef<str>>(labels: Labels<'_>, series: &[S], most: f64) -> Self {
        let (step, most) = scale(most);
        let (right, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        // As much as the greatest of its numbers needs.
        let left = LEFT.max(width(&number(most)) + 16.0);
        let legend = legend(series, left, right);
        let top = legend.last().map_or(40.0, |(_, down)| *down) + 28.0;
        let mut frame = Self { svg: head(labels.title), left, right, top, base, most };
        frame.text((left, 20.0), "start", "font-size=\"15\"", labels.title);
        for (number, ((x, y), name)) in legend.into_iter().zip(series).enumerate() {
            frame.rect((x, y - 7.0), (14.0, 4.0), colour(number), "");
            frame.text((x + 20.0, y), "start", "", name.as_ref());
        }
        frame.text((left - 8.0, top - 14.0), "end", "", labels.unit);
        for mark in 0..=count(most, step) {
            let value = f64::from(mark) * step;
            let y = frame.height_of(value);
            frame.rule((left, y), (right, y), 0.3);
            frame.text((left - 8.0, y + 4.0), "end", "", &number(value));
        }
        frame.text((f64::midpoint(left, right), HEIGHT - 10.0), "middle", "", labels.below);
        frame
    }

    /// Where a value stands, from the top of the picture.
    pub(crate) fn height_of(&self, value: f64) -> f64 {
        self.base - value / self.most * (self.base - self.top)
    }

    /// Draws text; `more` are further attributes.
    pub(crate) fn text(&mut self, at: (f64, f64), anchor: &str, more: &str, text: &str) {
        if !text.is_empty() {
            let (x, y) = at;
            let text = escaped(text);
            self.add(format_args!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{text}</text>"
            ));
        }
    }

    /// Draws a grey line.
    pub(crate) fn rule(&mut self, from: (f64, f64), to: (f64, f64), strength: f64) {
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{GREY}\" \
             stroke-opacity=\"{strength}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// Draws a filled rectangle; a hint is shown when a pointer rests on it.
    pub(crate) fn rect(&mut self, at: (f64, f64), size: (f64, f64), colour: &str, hint: &str) {
        let hint = match escaped(hint) {
            hint if hint.is_empty() => hint,
            hint => format!("<title>{hint}</title>"),
        };
        self.add(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\" \
             fill=\"{colour}\">{hint}</rect>",
            at.0, at.1, size.0, size.1
        ));
    }

    /// Adds any other element.
    pub(crate) fn add(&mut self, element: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.svg, "{element}");
    }

    /// The whole file.
    pub(crate) fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

/// Where each name stands, with its mark before it; on further lines where one is too narrow.
fn legend<S: AsRef<str>>(series: &[S], left: f64, right: f64) -> Vec<(f64, f64)> {
    let (mut across, mut down) = (left, 40.0);
    let places = series.iter().map(|name| {
        let width = 44.0 + width(name.as_ref());
        if across > left && across + width > right {
            (across, down) = (left, down + 16.0);
        }
        let place = (across, down);
        across += width;
        place
    });
    places.collect()
}

/// A viewer that knows what its page looks like gets text of more contrast.
fn head(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{GREY}\" role=\"img\" \
         aria-label=\"{}\">\n\
         <style>@media (prefers-color-scheme: light) {{ text {{ fill: #57606a }} }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #a6adb5 }} }}</style>\n",
        escaped(title)
    )
}

/// About how wide a text is.
pub(crate) fn width(text: &str) -> f64 {
    LETTER * f64::from(u32::try_from(text.chars().count()).unwrap_or(0))
}

/// A round step, and the multiple of it that holds everything.
pub(crate) fn scale(most: f64) -> (f64, f64) {
    let rough = (most / STEPS).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|digit| digit * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(power);
    (step, (most / step).ceil().max(1.0) * step)
}

/// How many steps there are up to a value.
pub(crate) fn count(most: f64, step: f64) -> u8 {
    (0..=u8::MAX)
        .take_while(|mark| f64::from(*mark) * step <= most + step / 100.0)
        .last()
        .unwrap_or(0)
}

/// A value as people read it: thousands apart, and no more digits than are told apart.
pub(crate) fn number(value: f64) -> String {
    if value >= 10_000.0 {
        let value = value.round();
        let (thousands, rest) = ((value / 1000.0).floor(), value % 1000.0);
        if thousands >= 1000.0 {
            let (millions, thousands) = ((thousands / 1000.0).floor(), thousands % 1000.0);
            return format!("{millions:.0} {thousands:03.0} {rest:03.0}");
        }
        format!("{thousands:.0} {rest:03.0}")
    } else if value.fract().abs() < 1e-9 || value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 1.0 || (value * 10.0).fract().abs() < 1e-9 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(scale(4312.0), (1000.0, 5000.0));
        assert_eq!(scale(19.0), (5.0, 20.0));
        assert_eq!(scale(0.0).1, scale(0.0).0);
        assert_eq!(count(20.0, 5.0), 4);
        assert_eq!(count(0.3, 0.1), 3);
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        for (value, text) in [
            (10_000.0, "10 000"),
            (1_234_567.0, "1 234 567"),
            (432.7, "433"),
            (2.5, "2.5"),
            (0.25, "0.25"),
            (3.0, "3"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn great_numbers_have_room() {
        let labels = Labels { title: "", below: "", unit: "" };
        let left = |most| Frame::new(labels, &["a"], most).left;
        assert!(left(1e6) > left(10.0) && left(1e6) > width("1 000 000"));
    }

    #[test]
    fn names_cannot_break_out() {
        let labels = Labels { title: "a<b", below: "", unit: "ms" };
        let svg = Frame::new(labels, &["x & \"y\""], 1.0).finish();
        assert!(svg.contains("a&lt;b") && svg.contains("x &amp; &quot;y&quot;"), "{svg}");
    }

    #[test]
    fn a_legend_that_is_too_wide_goes_on_below() {
        let labels = Labels { title: "", below: "", unit: "" };
        let long = "a name of some forty letters or even more";
        let one = Frame::new(labels, &[long], 1.0);
        let four = Frame::new(labels, &[long; 4], 1.0);
        assert!(four.height_of(1.0) > one.height_of(1.0) + 15.0);
    }
}
