//! What is in force: the handles, the callers and the routes that one configuration makes, put in place as one.
//!
//! Separate from `app`, which is one of them. A request takes what is in force when it comes and keeps it to its end, so that no
//! request sees half of a change. What callers have used, the connections to services that stay, and the keys of an identity
//! provider that stays go over into what follows.

use crate::app::{App, EndpointError};
use crate::auth::{Access, AccessError};
use crate::config::{Config, LimitsConfig};
use crate::router;
use arc_swap::ArcSwap;
use axum::Router;
use chassis::{Loaded, Problems, Reloads, Tasks};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Why a configuration cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Who may call.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What is called.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Files that options name.
    #[error("{}", .0.in_one_line())]
    Files(#[from] Problems),
}

/// What is in force; clones share everything.
#[derive(Debug, Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    tasks: Tasks,
    current: ArcSwap<Generation>,
    replaced: Notify,
}

/// What one configuration makes.
#[derive(Debug)]
pub struct Generation {
    /// The handles.
    pub app: App,
    /// The callers.
    pub access: Access,
    /// The routes.
    pub router: Router,
    /// Bounds of connections.
    pub limits: LimitsConfig,
}

impl Generation {
    fn build(
        config: Config,
        address: SocketAddr,
        before: Option<&Self>,
        tasks: &Tasks,
    ) -> Result<Self, LiveError> {
        let access = match before {
            Some(before) => before.access.rebuild(&config, address)?,
            None => Access::build(&config, address)?,
        };
        let limits = config.limits;
        let app = match before {
            Some(before) => before.app.rebuild(config, tasks)?,
            None => App::build(config, tasks)?,
        };
        access.keep_fresh(tasks);
        let router = router::build(app.clone(), access.clone(), tasks.clone());
        Ok(Self { app, access, router, limits })
    }
}

impl Live {
    /// What `config` makes for an edge that listens on `address`.
    ///
    /// # Errors
    /// As `Access::build` and `App::build`.
    pub fn build(config: Config, address: SocketAddr, tasks: &Tasks) -> Result<Self, LiveError> {
        let current = Generation::build(config, address, None, tasks)?;
        let inner = Inner {
            address,
            tasks: tasks.clone(),
            current: ArcSwap::from_pointee(current),
            replaced: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What is in force now.
    #[must_use]
    pub fn current(&self) -> Arc<Generation> {
        self.inner.current.load_full()
    }

    /// Resolves when something else is in force.
    pub fn replaced(&self) -> Notified<'_> {
        self.inner.replaced.notified()
    }

    /// Puts what `config` makes in place of what is in force.
    ///
    /// # Errors
    /// As `build`; nothing has changed then.
    pub fn replace(&self, config: Config) -> Result<(), LiveError> {
        Problems::in_files("edge", &config)?;
        let before = self.current();
        let inner = &self.inner;
        let next = Generation::build(config, inner.address, Some(&before), &inner.tasks)?;
        inner.current.store(Arc::new(next));
        // One waits; it may be busy just now.
        inner.replaced.notify_one();
        Ok(())
    }

    /// Puts each new configuration in force, until the tasks stop.
    pub async fn follow(self, mut reloads: Reloads<Config>) {
        let mut stopping = std::pin::pin!(self.inner.tasks.stopping());
        loop {
            let Loaded { config, values } = tokio::select! {
                loaded = reloads.next() => loaded,
                () = &mut stopping => return,
            };
            match self.replace(config) {
                Ok(()) => reloads.applied(values),
                Err(error) => reloads.refused(&error.to_string()),
            }
        }
    }
}
