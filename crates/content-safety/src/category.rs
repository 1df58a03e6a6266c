//! The words of a verdict: categories of harm, severities, and what was found in a text or a picture.
//!
//! Separate because every file of the service speaks them. A category that no model judged is absent, never "safe".

use serde::Deserialize;

/// A kind of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Attacks on people for what they are: religion, origin, orientation, sex, disability.
    Hate,
    /// Hurting or killing oneself, and eating disorders.
    SelfHarm,
    /// Sexual acts and nudity.
    Sexual,
    /// Hurting or killing others, weapons, terrorism.
    Violence,
}

impl Category {
    /// All of them, in the order of the text model's scores.
    pub const ALL: [Self; 4] = [Self::Hate, Self::SelfHarm, Self::Sexual, Self::Violence];

    /// The name in configuration, metrics and the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hate => "hate",
            Self::SelfHarm => "self_harm",
            Self::Sexual => "sexual",
            Self::Violence => "violence",
        }
    }
}

/// How bad, 0 to 7: 0-1 safe, 2-3 low, 4-5 medium, 6-7 high.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    /// The worst there is.
    pub const MAX: u8 = 7;
    /// Harmless.
    pub const SAFE: Self = Self(0);

    /// `value`, at most 7.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        if value > Self::MAX { Self(Self::MAX) } else { Self(value) }
    }

    /// 0 to 7.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// The scores at which the severities 1 to 7 begin.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "[f32; 7]")]
pub struct Scale([f32; 7]);

impl Scale {
    /// The severity of `score`.
    #[must_use]
    pub fn severity(&self, score: f32) -> Severity {
        let reached = self.0.iter().take_while(|begins| score >= **begins).count();
        Severity::new(u8::try_from(reached).unwrap_or(Severity::MAX))
    }
}

impl TryFrom<[f32; 7]> for Scale {
    type Error = &'static str;

    fn try_from(begins: [f32; 7]) -> Result<Self, Self::Error> {
        if begins.is_sorted() { Ok(Self(begins)) } else { Err("a severity scale must not fall") }
    }
}

/// Where in a request something was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Which text of the request, from 0.
    pub segment: u32,
    /// Its first character, from 0.
    pub begin: u32,
    /// The character after its last.
    pub end: u32,
}

/// What a model says of one category.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Grade {
    /// How bad.
    pub severity: Severity,
    /// The score behind it, 0 to 1.
    pub score: f32,
    /// The stretch of text that got it; none for pictures, for what says nothing, and for several texts together.
    pub span: Option<Span>,
}

impl Grade {
    /// The worse of two.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let is_worse = (other.severity, other.score) > (self.severity, self.score);
        if is_worse { other } else { self }
    }
}

/// Whether something attacks the model that reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Attack {
    /// Whether the score reached the model's threshold.
    pub detected: bool,
    /// 0 to 1.
    pub score: f32,
    /// The stretch of text that got it; none where there was no text, and for several texts together.
    pub span: Option<Span>,
}

impl Attack {
    /// The worse of two.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let is_worse = (other.detected, other.score) > (self.detected, self.score);
        if is_worse { other } else { self }
    }
}

/// Grades by category; a category that was not judged is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Grades([Option<Grade>; 4]);

impl Grades {
    /// The grade of `category`, if it was judged.
    #[must_use]
    pub fn get(&self, category: Category) -> Option<Grade> {
        self.iter().find(|(c, _)| *c == category).map(|(_, grade)| grade)
    }

    /// These grades with `grade` for `category`.
    #[must_use]
    pub fn with(mut self, category: Category, grade: Grade) -> Self {
        for (slot, c) in self.0.iter_mut().zip(Category::ALL) {
            if c == category {
                *slot = Some(grade);
            }
        }
        self
    }

    /// The worse of two in each category; judged once is judged.
    #[must_use]
    pub fn worse(mut self, other: &Self) -> Self {
        for (slot, theirs) in self.0.iter_mut().zip(other.0) {
            *slot = match (*slot, theirs) {
                (Some(a), Some(b)) => Some(a.worse(b)),
                (one, None) | (None, one) => one,
            };
        }
        self
    }

    /// What was judged, in the order of `Category::ALL`.
    pub fn iter(&self) -> impl Iterator<Item = (Category, Grade)> + '_ {
        Category::ALL.into_iter().zip(self.0).filter_map(|(c, grade)| grade.map(|g| (c, g)))
    }
}

/// What was found in one text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TextFinding {
    /// Harm.
    pub grades: Grades,
    /// Attack on the model, if the user says it.
    pub jailbreak: Attack,
    /// Attack on the model, if a document or the result of a tool says it.
    pub indirect_attack: Attack,
}

impl TextFinding {
    /// Of a text that says nothing: safe in every category.
    #[must_use]
    pub fn harmless() -> Self {
        let safe = |grades: Grades, category| grades.with(category, Grade::default());
        let grades = Category::ALL.into_iter().fold(Grades::default(), safe);
        Self { grades, ..Self::default() }
    }

    /// The same, found in the text with the number `segment`.
    #[must_use]
    pub fn in_segment(mut self, segment: u32) -> Self {
        self.spans().flatten().for_each(|span| span.segment = segment);
        self
    }

    /// The same, found in several texts together.
    #[must_use]
    pub fn in_several(mut self) -> Self {
        self.spans().for_each(|span| *span = None);
        self
    }

    fn spans(&mut self) -> impl Iterator<Item = &mut Option<Span>> {
        let grades = self.grades.0.iter_mut().flatten().map(|grade| &mut grade.span);
        grades.chain([&mut self.jailbreak.span, &mut self.indirect_attack.span])
    }

    /// The worse of two, part by part.
    #[must_use]
    pub fn worse(self, other: &Self) -> Self {
        Self {
            grades: self.grades.worse(&other.grades),
            jailbreak: self.jailbreak.worse(other.jailbreak),
            indirect_attack: self.indirect_attack.worse(other.indirect_attack),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(severity: u8, score: f32) -> Grade {
        Grade { severity: Severity::new(severity), score, span: None }
    }

    #[test]
    fn a_score_gets_the_highest_severity_it_reaches() {
        let scale = Scale::try_from([0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9]).unwrap();
        let severity = |score| scale.severity(score).value();
        assert_eq!([0.0, 0.1, 0.49, 0.5, 0.89, 0.9, 1.0].map(severity), [0, 1, 3, 4, 6, 7, 7]);
        assert_eq!(severity(f32::NAN), 0);
    }

    #[test]
    fn a_scale_that_falls_is_refused() {
        assert!(Scale::try_from([0.1, 0.2, 0.15, 0.5, 0.6, 0.7, 0.9]).is_err());
    }

    #[test]
    fn the_worse_grade_wins_and_what_nobody_judged_stays_absent() {
        let one = Grades::default().with(Category::Hate, grade(2, 0.3));
        let two = Grades::default()
            .with(Category::Hate, grade(4, 0.6))
            .with(Category::Sexual, grade(0, 0.0));
        let both = one.worse(&two);
        assert_eq!(both.get(Category::Hate), Some(grade(4, 0.6)));
        assert_eq!(both.get(Category::Sexual), Some(grade(0, 0.0)));
        assert_eq!(both.get(Category::Violence), None);
        assert_eq!(two.worse(&one), both);
    }

    #[test]
    fn the_worse_of_two_keeps_its_place() {
        let at = |begin| Some(Span { segment: 0, begin, end: begin + 1 });
        let found = |severity, score, begin| {
            let grade = Grade { span: at(begin), ..grade(severity, score) };
            let attack = Attack { detected: severity > 3, score, span: at(begin) };
            let grades = Grades::default().with(Category::Hate, grade);
            TextFinding { grades, jailbreak: attack, indirect_attack: Attack::default() }
        };
        let worst = found(2, 0.3, 0).worse(&found(6, 0.9, 7)).in_segment(3);
        let place = Some(Span { segment: 3, begin: 7, end: 8 });
        assert_eq!(worst.grades.get(Category::Hate).unwrap().span, place);
        assert_eq!((worst.jailbreak.span, worst.indirect_attack.span), (place, None));
    }
}
