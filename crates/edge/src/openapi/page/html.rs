//! HTML that is written piece by piece; what is not markup of ours is escaped.

/// A page that is being written.
#[derive(Debug, Default)]
pub(super) struct Html {
    out: String,
}

impl Html {
    /// Markup of ours.
    pub(super) fn raw(&mut self, markup: &str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Text of somebody.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c => self.out.push(c),
            }
        }
        self
    }

    /// Text in an element.
    pub(super) fn element(&mut self, name: &str, text: &str) -> &mut Self {
        self.raw(&format!("<{name}>")).text(text).raw(&format!("</{name}>"))
    }

    /// Text with empty lines between paragraphs, dashes before points and backticks around code.
    pub(super) fn paragraphs(&mut self, text: &str) -> &mut Self {
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            self.raw("<p>");
            for (i, line) in paragraph.trim().lines().enumerate() {
                if i > 0 {
                    self.raw(if line.starts_with("- ") { "<br>" } else { " " });
                }
                self.line(line);
            }
            self.raw("</p>\n");
        }
        self
    }

    fn line(&mut self, line: &str) {
        for (i, piece) in line.split('`').enumerate() {
            if i % 2 == 1 {
                self.element("code", piece);
            } else {
                self.text(piece);
            }
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// A name as the anchor of a link.
pub(super) fn slug(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(keep).collect()
}
