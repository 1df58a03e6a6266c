//! Sampling parameters and how much of each a model takes.
//!
//! Separate from the other abilities because a parameter has three answers: the API's whole range, a part of it, nothing. The
//! API's ranges are repeated here from the parser (`api_types::rest::sampling`), which refuses what is outside them with a 400
//! before anybody asks which model is meant.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest count of the API: a 32-bit signed integer in every client.
const LARGEST_COUNT: f64 = 2_147_483_647.0;
/// Largest `n` of the API.
const MOST_CHOICES: f64 = 128.0;

/// A parameter that a model may take less of than the API allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// `temperature`
    Temperature,
    /// `top_p`
    TopP,
    /// `frequency_penalty`
    FrequencyPenalty,
    /// `presence_penalty`
    PresencePenalty,
    /// `max_tokens`, and `max_completion_tokens`, its newer name
    MaxTokens,
    /// `n`
    N,
    /// `seed`
    Seed,
    /// `stop`
    Stop,
    /// `logit_bias`
    LogitBias,
}

impl Parameter {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Temperature,
        Self::TopP,
        Self::FrequencyPenalty,
        Self::PresencePenalty,
        Self::MaxTokens,
        Self::N,
        Self::Seed,
        Self::Stop,
        Self::LogitBias,
    ];

    /// Its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::FrequencyPenalty => "frequency_penalty",
            Self::PresencePenalty => "presence_penalty",
            Self::MaxTokens => "max_tokens",
            Self::N => "n",
            Self::Seed => "seed",
            Self::Stop => "stop",
            Self::LogitBias => "logit_bias",
        }
    }

    /// The parameter of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|parameter| parameter.as_str() == name)
    }

    /// The API's range; none for a parameter that is no number.
    #[must_use]
    pub const fn range(self) -> Option<(f64, f64)> {
        match self {
            Self::Temperature => Some((0.0, 2.0)),
            Self::TopP => Some((0.0, 1.0)),
            Self::FrequencyPenalty | Self::PresencePenalty => Some((-2.0, 2.0)),
            Self::MaxTokens => Some((0.0, LARGEST_COUNT)),
            Self::N => Some((1.0, MOST_CHOICES)),
            Self::Seed | Self::Stop | Self::LogitBias => None,
        }
    }
}

/// How much of a parameter a model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterLimit {
    /// Least value; none is the API's.
    pub minimum: Option<f64>,
    /// Largest value; none is the API's.
    pub maximum: Option<f64>,
    /// No value at all is taken.
    #[serde(default)]
    pub refused: bool,
}

/// What a value of a parameter meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fit {
    /// The model takes it.
    Taken,
    /// The model takes others, in this range.
    OutOfRange(f64, f64),
    /// The model takes none.
    Refused,
}

/// The parameters of which a model takes less than the API allows; of all others it takes the whole range.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParameterLimits(BTreeMap<Parameter, ParameterLimit>);

impl ParameterLimits {
    /// These limits alone.
    #[must_use]
    pub fn new(limits: impl IntoIterator<Item = (Parameter, ParameterLimit)>) -> Self {
        Self(limits.into_iter().collect())
    }

    /// The limits that are named are replaced, the others stay.
    pub(super) fn narrow(&mut self, limits: &BTreeMap<Parameter, ParameterLimit>) {
        self.0.extend(limits.iter().map(|(parameter, limit)| (*parameter, *limit)));
    }

    /// Whether any value is taken.
    #[must_use]
    pub fn takes(&self, parameter: Parameter) -> bool {
        !self.0.get(&parameter).is_some_and(|limit| limit.refused)
    }

    /// The range that is taken; none for a parameter that is no number.
    #[must_use]
    pub fn range(&self, parameter: Parameter) -> Option<(f64, f64)> {
        let (least, most) = parameter.range()?;
        let limit = self.0.get(&parameter).copied().unwrap_or_default();
        Some((limit.minimum.unwrap_or(least), limit.maximum.unwrap_or(most)))
    }

    /// What `value` meets.
    #[must_use]
    pub fn fit(&self, parameter: Parameter, value: f64) -> Fit {
        match (self.takes(parameter), self.range(parameter)) {
            (false, _) => Fit::Refused,
            (true, Some((least, most))) if value < least || value > most => {
                Fit::OutOfRange(least, most)
            }
            (true, _) => Fit::Taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_parameter_and_back() {
        for parameter in Parameter::ALL {
            assert_eq!(Parameter::named(parameter.as_str()), Some(parameter));
        }
        assert_eq!(Parameter::named("top_k"), None);
    }

    #[test]
    fn what_is_not_limited_has_the_range_of_the_api() {
        let cool = ParameterLimit { maximum: Some(1.0), ..ParameterLimit::default() };
        let none = ParameterLimit { refused: true, ..ParameterLimit::default() };
        let limits =
            ParameterLimits::new([(Parameter::Temperature, cool), (Parameter::Seed, none)]);
        assert_eq!(limits.fit(Parameter::Temperature, 1.0), Fit::Taken);
        assert_eq!(limits.fit(Parameter::Temperature, 1.5), Fit::OutOfRange(0.0, 1.0));
        assert_eq!(limits.fit(Parameter::TopP, 0.5), Fit::Taken);
        assert_eq!(limits.fit(Parameter::Seed, 1.0), Fit::Refused);
        assert_eq!(limits.range(Parameter::TopP), Some((0.0, 1.0)));
        assert_eq!(limits.range(Parameter::Seed), None);
    }

    #[test]
    fn the_configuration_adds_to_what_the_service_says() {
        let none = ParameterLimit { refused: true, ..ParameterLimit::default() };
        let mut limits = ParameterLimits::new([(Parameter::Seed, none)]);
        let cool = ParameterLimit { maximum: Some(0.5), ..ParameterLimit::default() };
        limits.narrow(&BTreeMap::from([(Parameter::Temperature, cool)]));
        assert!(!limits.takes(Parameter::Seed));
        assert_eq!(limits.range(Parameter::Temperature), Some((0.0, 0.5)));
    }
}
