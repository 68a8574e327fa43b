//! Lines of a configuration, split into words.

/// The lines of a text with their numbers, the first is 1; without those that are blank or begin with `#`.
pub(super) fn settings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The words of a line: split at spaces and tabs, except in double quotes, which are taken away. A `#` between words ends it.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let (mut is_open, mut is_quoted) = (false, false);
    for c in line.chars() {
        match c {
            '"' => {
                is_open = true;
                is_quoted = !is_quoted;
            }
            '#' if !is_open => break,
            ' ' | '\t' if !is_quoted => {
                if is_open {
                    all.push(std::mem::take(&mut word));
                    is_open = false;
                }
            }
            c => {
                is_open = true;
                word.push(c);
            }
        }
    }
    if is_open {
        all.push(word);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_kept_together_by_quotes() {
        assert_eq!(words("a  \"b c\"d\te # f"), ["a", "b cd", "e"]);
        assert_eq!(words("a \"\" b#c"), ["a", "", "b#c"]);
        assert_eq!(words("\"open"), ["open"]);
        assert!(words("# all").is_empty());
    }

    #[test]
    fn a_line_has_its_number_whatever_stands_before_it() {
        let found: Vec<_> = settings("\u{feff}# one\n\n  x y \r\n\tz").collect();
        assert_eq!(found, [(3, "x y"), (4, "z")]);
    }
}
