//! What chat templates expect of their engine besides plain Jinja: Python's methods, JSON and clock.
//!
//! Separate because it is about templates in general; `prompt` is about conversations. Templates come with a model, so
//! they are trusted as far as the model is.

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the one template of an environment.
pub(crate) const TEMPLATE: &str = "chat";

/// An environment that renders `template` as the libraries do that models are trained with.
///
/// # Errors
/// When the template does not parse.
pub(crate) fn environment(template: String) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_keep_trailing_newline(false);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", |format: &str| strftime(format, now()));
    env.add_filter("tojson", tojson);
    env.add_template_owned(TEMPLATE, template)?;
    Ok(env)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// JSON as Python writes it: not escaped for HTML, with blanks after separators.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _not_needed: Option<Value> = options.get("ensure_ascii")?;
    let _not_needed: Option<Value> = options.get("separators")?;
    let _not_needed: Option<Value> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let failed = |e| Error::new(ErrorKind::BadSerialization, "cannot write JSON").with_source(e);
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let blanks = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
                .map_err(failed)?;
        }
        None => {
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced))
                .map_err(failed)?;
        }
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

/// `{"a": 1, "b": [2, 3]}`
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The part of `strftime` that templates use, in UTC; unknown directives stay as they are.
fn strftime(format: &str, seconds: u64) -> String {
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let month_name = MONTHS.get(month.saturating_sub(1)).copied().unwrap_or_default();
    let day_name = DAYS.get(usize::try_from(days % 7).unwrap_or(0)).copied().unwrap_or_default();
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next();
        let part = match directive {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('-') => chars.next().map_or_else(String::new, |_| day.to_string()),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name.chars().take(3).collect(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name.chars().take(3).collect(),
            Some('H') => format!("{hour:02}"),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{second:02}"),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') | None => "%".to_owned(),
            Some(other) => format!("%{other}"),
        };
        out.push_str(&part);
    }
    out
}

/// Year, month and day of a day since 1970-01-01, by years that begin in March (Howard Hinnant's algorithm).
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), usize::try_from(month).unwrap_or(1), day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn render(template: &str, value: serde_json::Value) -> String {
        let env = environment(template.to_owned()).unwrap();
        env.get_template(TEMPLATE)
            .unwrap()
            .render(context! { v => Value::from_serialize(value) })
            .unwrap()
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = serde_json::json!({ "z": "<é'>", "a": [1, 2.5, null] });
        assert_eq!(
            render("{{ v | tojson }}", value.clone()),
            r#"{"z": "<é'>", "a": [1, 2.5, null]}"#
        );
        assert_eq!(render("{{ v.a | tojson(indent=2) }}", value), "[\n  1,\n  2.5,\n  null\n]");
    }

    #[test]
    fn python_methods_and_loop_controls_work() {
        let value = serde_json::json!(["a ", "b", "c"]);
        let template = "{%- for x in v %}\n{%- if x == 'c' %}{% break %}{% endif %}\n{{- x.strip() }},\n{%- endfor %}";
        assert_eq!(render(template, value), "a,b,");
    }

    #[test]
    fn dates_are_right_across_leap_years() {
        assert_eq!(strftime("%Y-%m-%d %A", 0), "1970-01-01 Thursday");
        assert_eq!(strftime("%d %b %Y", 951_782_400), "29 Feb 2000");
        assert_eq!(strftime("%-d %B %y %H:%M:%S %%", 1_735_689_599), "31 December 24 23:59:59 %");
        assert_eq!(strftime("%F", 4_107_542_400), "2100-03-01");
    }

    #[test]
    fn a_template_can_refuse() {
        let env = environment("{{ raise_exception('no such role') }}".to_owned()).unwrap();
        let error = env.get_template(TEMPLATE).unwrap().render(context! {}).unwrap_err();
        assert!(error.to_string().contains("no such role"));
    }
}
