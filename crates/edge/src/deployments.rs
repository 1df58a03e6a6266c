//! Names → deployments: which service, which model, what it can do, which safety policy.
//!
//! Separate because every 404 and 422 of the API is decided by this table and by nothing else. The table is built from what the
//! services list and from `[[edge.deployments]]`, is immutable, and is replaced as a whole when the services are asked again.

mod abilities;
mod parameters;

pub use abilities::{
    Abilities, ChatAbilities, DeploymentConfig, EmbeddingAbilities, Purpose, ServiceName,
};

pub use parameters::{Fit, Parameter, ParameterLimit, ParameterLimits};

use crate::config::{Config, DefaultsConfig};
use crate::context::Family;
use api_types::{ErrorCode, Fault};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Value of a default that means that no deployment answers unasked, and of the root that no deployment has it to itself.
const NO_DEFAULT: &str = "none";
/// Extra parameters: the model takes any.
const ANY: &str = "*";
/// When to try again while the services have not all said what they serve.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);

/// What a route asks of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// `POST /chat/completions`
    Chat,
    /// `POST /completions`
    Completions,
    /// `POST /embeddings`
    Embeddings,
    /// `POST /images/embeddings`
    ImageEmbeddings,
}

impl Modality {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Chat, Self::Completions, Self::ImageEmbeddings, Self::Embeddings];

    /// The route, for messages.
    #[must_use]
    pub const fn route(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::ImageEmbeddings => "/images/embeddings",
        }
    }

    /// `model_type` of `GET /info`, in the spelling that the clients compare with (section 7).
    #[must_use]
    pub const fn model_type(self) -> &'static str {
        match self {
            Self::Chat => "chat-completions",
            Self::Completions => "text-generation",
            Self::Embeddings => "embeddings",
            Self::ImageEmbeddings => "image-embeddings",
        }
    }

    fn default_of(self, defaults: &DefaultsConfig) -> &str {
        match self {
            Self::Chat => &defaults.chat,
            Self::Completions => &defaults.completions,
            Self::Embeddings => &defaults.embeddings,
            Self::ImageEmbeddings => &defaults.image_embeddings,
        }
    }
}

/// A model as its service lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedModel {
    /// The service's name for it.
    pub name: String,
    /// Who published the weights.
    pub publisher: String,
    /// Which weights; empty where the service does not say.
    pub version: String,
    /// What it can do.
    pub abilities: Abilities,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// What requests say.
    pub name: String,
    /// The service's name for the model.
    pub model: String,
    /// Who published the weights; never empty.
    pub publisher: String,
    /// Which weights; empty where the service does not say.
    pub version: String,
    /// Safety policy; empty screens nothing.
    pub policy: String,
    /// The deployment that answers in its place while its model cannot.
    pub fallback: Option<String>,
    /// What it can do.
    pub abilities: Abilities,
}

impl Deployment {
    /// Whether it serves the route of `modality`.
    #[must_use]
    pub const fn serves(&self, modality: Modality) -> bool {
        match (&self.abilities, modality) {
            (Abilities::Chat(chat), Modality::Chat) => chat.chat,
            (Abilities::Chat(chat), Modality::Completions) => chat.completions,
            (Abilities::Embedding(embedding), Modality::Embeddings) => embedding.text,
            (Abilities::Embedding(embedding), Modality::ImageEmbeddings) => embedding.image,
            (Abilities::Chat(_), Modality::Embeddings | Modality::ImageEmbeddings)
            | (Abilities::Embedding(_), Modality::Chat | Modality::Completions) => false,
        }
    }

    /// The first route it serves, which is what `GET /info` calls its type.
    #[must_use]
    pub fn modality(&self) -> Option<Modality> {
        Modality::ALL.into_iter().find(|m| self.serves(*m))
    }

    /// What the chat service can do with it; nothing where another service serves it.
    #[must_use]
    pub fn chat(&self) -> ChatAbilities {
        match &self.abilities {
            Abilities::Chat(chat) => chat.clone(),
            Abilities::Embedding(_) => ChatAbilities::default(),
        }
    }

    /// What the embedding service can do with it; nothing where another service serves it.
    #[must_use]
    pub fn embedding(&self) -> EmbeddingAbilities {
        match &self.abilities {
            Abilities::Embedding(embedding) => embedding.clone(),
            Abilities::Chat(_) => EmbeddingAbilities::default(),
        }
    }

    /// Whether the extra parameter `name` may be passed through.
    #[must_use]
    pub fn takes_extra(&self, name: &str) -> bool {
        let names = match &self.abilities {
            Abilities::Chat(chat) => &chat.extra_parameters,
            Abilities::Embedding(embedding) => &embedding.extra_parameters,
        };
        names.iter().any(|n| n == ANY || n == name)
    }
}

/// The names a request gives, strongest first (section 15).
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// From the path of `/openai/deployments/{d}`.
    pub path: Option<String>,
    /// From the body or the query; empty counts as absent.
    pub model: Option<String>,
    /// From the header `azureml-model-deployment`.
    pub deployment_header: Option<String>,
    /// From the header `x-ms-model-mesh-model-name`.
    pub mesh_header: Option<String>,
}

impl Selector {
    fn name(&self) -> Option<&str> {
        [&self.path, &self.model, &self.deployment_header, &self.mesh_header]
            .into_iter()
            .find_map(|name| name.as_deref().filter(|n| !n.is_empty()))
    }
}

/// All deployments.
#[derive(Debug, Clone)]
pub struct Table {
    by_name: HashMap<String, Arc<Deployment>>,
    /// Those of the configuration first, then what the services list, each in its order.
    order: Vec<Arc<Deployment>>,
    defaults: DefaultsConfig,
    /// As in the configuration: whose the root routes are.
    root: String,
    /// Whether every service has said what it serves.
    complete: bool,
}

impl Table {
    /// The table of what the services listed. `complete` says whether every service has answered.
    #[must_use]
    pub fn build(config: &Config, listed: &[ListedModel], complete: bool) -> Self {
        let configured =
            config.deployments.iter().filter_map(|over| configured(config, over, listed));
        let plain = listed.iter().map(|model| Deployment {
            name: model.name.clone(),
            model: model.name.clone(),
            publisher: publisher(&model.publisher),
            version: model.version.clone(),
            policy: config.guard.policy.clone(),
            fallback: None,
            abilities: model.abilities.clone(),
        });
        let mut table = Self {
            by_name: HashMap::new(),
            order: Vec::new(),
            defaults: config.defaults.clone(),
            root: config.api.root.clone(),
            complete,
        };
        for deployment in configured.chain(plain) {
            let deployment = Arc::new(deployment);
            let key = deployment.name.to_lowercase();
            if let std::collections::hash_map::Entry::Vacant(slot) = table.by_name.entry(key) {
                slot.insert(Arc::clone(&deployment));
                table.order.push(deployment);
            }
        }
        table
    }

    /// All deployments, those of the configuration first.
    #[must_use]
    pub fn all(&self) -> &[Arc<Deployment>] {
        &self.order
    }

    /// The deployment called `name`, without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Deployment>> {
        self.by_name.get(&name.to_lowercase())
    }

    /// The one deployment that answers under `/`, whatever requests name there (section 1); none where requests choose.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        match (self.root.as_str(), self.order.as_slice()) {
            ("", [only]) if self.complete => Some(&only.name),
            ("" | NO_DEFAULT, _) => None,
            (name, _) => Some(name),
        }
    }

    /// The deployment that answers a request for `modality`.
    ///
    /// # Errors
    /// 404 for an unknown name or one that does not serve the modality, 400 when none is named and there is no default, 503
    /// while the services have not all said what they serve.
    pub fn select(
        &self,
        selector: &Selector,
        modality: Modality,
        family: Family,
    ) -> Result<Arc<Deployment>, Fault> {
        let Some(name) = selector.name() else { return self.default_for(modality, family) };
        let deployment = self.find(name, family)?;
        if !deployment.serves(modality) {
            return Err(not_served(name, modality));
        }
        Ok(deployment)
    }

    /// The deployment that `GET /info` describes.
    ///
    /// # Errors
    /// As `select`.
    pub fn describe(&self, selector: &Selector, family: Family) -> Result<Arc<Deployment>, Fault> {
        if let Some(name) = selector.name() {
            return self.find(name, family);
        }
        let served = Modality::ALL.into_iter().find(|m| self.order.iter().any(|d| d.serves(*m)));
        self.default_for(served.unwrap_or(Modality::Chat), family)
    }

    fn find(&self, name: &str, family: Family) -> Result<Arc<Deployment>, Fault> {
        match self.get(name) {
            Some(deployment) => Ok(Arc::clone(deployment)),
            None if !self.complete => Err(incomplete()),
            None => Err(unknown(name, family)),
        }
    }

    fn default_for(&self, modality: Modality, family: Family) -> Result<Arc<Deployment>, Fault> {
        match modality.default_of(&self.defaults) {
            NO_DEFAULT => Err(Fault::new(
                ErrorCode::NoModelName,
                "The request names no model. Put the deployment name in the body field 'model' or in the \
                 x-ms-model-mesh-model-name header.",
            )),
            "" => match self.order.iter().find(|d| d.serves(modality)) {
                Some(first) => Ok(Arc::clone(first)),
                None if !self.complete => Err(incomplete()),
                None => Err(Fault::new(
                    ErrorCode::ModalityNotSupported,
                    format!("No model here supports the {} route.", modality.route()),
                )),
            },
            name => {
                let deployment = self.find(name, family)?;
                if deployment.serves(modality) {
                    Ok(deployment)
                } else {
                    Err(not_served(name, modality))
                }
            }
        }
    }
}

fn configured(
    config: &Config,
    over: &DeploymentConfig,
    listed: &[ListedModel],
) -> Option<Deployment> {
    let name = over.model.as_ref().unwrap_or(&over.name);
    let model = listed.iter().find(|m| m.name == *name && m.abilities.service() == over.service)?;
    let mut abilities = model.abilities.clone();
    abilities.apply(over);
    Some(Deployment {
        name: over.name.clone(),
        model: model.name.clone(),
        publisher: publisher(over.publisher.as_ref().unwrap_or(&model.publisher)),
        version: model.version.clone(),
        policy: over.policy.as_ref().unwrap_or(&config.guard.policy).clone(),
        fallback: over.fallback.clone(),
        abilities,
    })
}

/// Clients lower-case the publisher without looking whether there is one (section 7).
fn publisher(name: &str) -> String {
    if name.is_empty() { "unknown".to_owned() } else { name.to_owned() }
}

fn unknown(name: &str, family: Family) -> Fault {
    match family {
        Family::Inference | Family::ContentSafety => {
            Fault::new(ErrorCode::UnknownModel, format!("Unknown model: {name}"))
                .with_target("model")
        }
        Family::Deployments | Family::OpenAi => Fault::new(
            ErrorCode::DeploymentNotFound,
            format!("No deployment named '{name}' exists on this resource."),
        )
        .with_target("model"),
    }
}

fn not_served(name: &str, modality: Modality) -> Fault {
    let route = modality.route();
    Fault::new(
        ErrorCode::ModalityNotSupported,
        format!("The model '{name}' does not support the {route} route."),
    )
}

fn incomplete() -> Fault {
    Fault::new(ErrorCode::Unavailable, "the services behind this endpoint are still starting")
        .with_retry_after(DISCOVERY_RETRY)
}

#[cfg(test)]
mod tests;
