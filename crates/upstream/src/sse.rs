//! Server-sent events out of bytes that may be cut anywhere.
//!
//! Hand-written because the sender is not trusted: an event has a largest size, and a sender that never ends its line is
//! refused instead of filling the memory. Takes what the standard takes: LF, CR LF and CR, comments, several data lines.

use std::collections::VecDeque;

/// Largest event or line; one with 20 alternatives for each of many tokens has some hundred KiB.
pub(crate) const LARGEST_EVENT: usize = 4 * 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its data lines, joined by LF.
    Data(Vec<u8>),
    /// The value of an `error` field, which some builds of llama.cpp send in place of data.
    Error(Vec<u8>),
}

/// An event larger than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// The state between two pieces of a stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    error: Option<Vec<u8>>,
    after_carriage_return: bool,
    past_first_line: bool,
    ready: VecDeque<Event>,
}

impl Parser {
    /// Takes the next bytes; whole events can be had from `next` afterwards.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        for piece in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            let (end, text) = match piece.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (Some(*end), text),
                Some(_) | None => (None, piece),
            };
            let joins = std::mem::take(&mut self.after_carriage_return);
            if joins && end == Some(b'\n') && text.is_empty() {
                continue;
            }
            if self.line.len() + text.len() > LARGEST_EVENT {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(text);
            if let Some(end) = end {
                self.after_carriage_return = end == b'\r';
                self.end_line()?;
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// Takes what is there as an event: some servers end without the last blank line.
    pub(crate) fn finish(&mut self) -> Result<(), TooLarge> {
        self.end_line()?;
        self.dispatch();
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), TooLarge> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.past_first_line, true) && line.starts_with(BYTE_ORDER_MARK)
        {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let field = match &line[..colon] {
            b"data" => &mut self.data,
            b"error" => &mut self.error,
            // Comments, and fields that say nothing about the data.
            _ => return Ok(()),
        };
        match field {
            Some(lines) if lines.len() + value.len() >= LARGEST_EVENT => return Err(TooLarge),
            Some(lines) => {
                lines.push(b'\n');
                lines.extend_from_slice(value);
            }
            None => *field = Some(value.to_vec()),
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        self.ready.extend(self.error.take().map(Event::Error));
        self.ready.extend(self.data.take().filter(|data| !data.is_empty()).map(Event::Data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.push(piece).unwrap();
        }
        parser.finish().unwrap();
        std::iter::from_fn(|| parser.next())
            .map(|event| match event {
                Event::Data(data) => String::from_utf8(data).unwrap(),
                Event::Error(data) => format!("error {}", String::from_utf8(data).unwrap()),
            })
            .collect()
    }

    const SAMPLE: &str = "\u{feff}data: {\"a\":\"ä\u{1f600}\"}\n\n: ping\r\n\r\nevent: x\rid: 1\rdata:b\r\rdata: c\r\ndata: d\r\n\r\nretry: 3\n\nerror: {}\n\ndata: [DONE]";

    #[test]
    fn every_field_and_line_end_of_the_standard_is_understood() {
        let expected = ["{\"a\":\"ä\u{1f600}\"}", "b", "c\nd", "error {}", "[DONE]"];
        assert_eq!(events(&[SAMPLE.as_bytes()]), expected);
    }

    #[test]
    fn the_place_of_a_cut_changes_nothing() {
        let whole = events(&[SAMPLE.as_bytes()]);
        for cut in 0..=SAMPLE.len() {
            let (head, tail) = SAMPLE.as_bytes().split_at(cut);
            assert_eq!(events(&[head, tail]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = SAMPLE.as_bytes().chunks(1).collect();
        assert_eq!(events(&bytes), whole);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; LARGEST_EVENT / 4 + 1];
        let results: Vec<_> = (0..4).map(|_| parser.push(&piece)).collect();
        assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(TooLarge)]);
    }

    #[test]
    fn endless_data_lines_are_refused() {
        let mut parser = Parser::default();
        let line = [b"data:".as_slice(), &vec![b'x'; LARGEST_EVENT / 2], b"\n"].concat();
        assert_eq!(parser.push(&line), Ok(()));
        assert_eq!(parser.push(&line), Err(TooLarge));
    }
}
