//! All webhooks: those of the file and those made over the API, made, changed and ended while the rest runs.

use super::{
    Declaration, MOST_WEBHOOKS, SESSIONS, Webhook,
    courier::{self, Courier},
    dead,
    figures::{Figures, Snapshot},
    resolver::{Resolver, Unreachable},
    session_id,
};
use crate::{config::Config, problem::Problem, routes::sessions::subscribe, state::App};
use parking_lot::RwLock;
use reqwest::{Client, redirect};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};
use utoipa::ToSchema;
use waystation_broker::{ClientId, Lsn, Principal, Reason};

/// What they are kept as in the broker's documents.
const KIND: &str = "webhook";

/// What of the time for farewells is left to the rest of the gateway.
const RESERVE: Duration = Duration::from_millis(500);

/// All webhooks of a gateway.
#[derive(Default)]
pub(crate) struct Webhooks {
    /// At most [`MOST_WEBHOOKS`].
    hooks: RwLock<BTreeMap<Box<str>, Hook>>,
    /// One change at a time; held over awaits, before `hooks`.
    changes: tokio::sync::Mutex<()>,
    /// Whether couriers are to run.
    started: AtomicBool,
    resolver: Resolver,
    /// Made with the first request: it reads the system's certificates.
    client: OnceLock<Result<Client, String>>,
}

struct Hook {
    declaration: Declaration,
    webhook: Webhook,
    source: Source,
    principal: Principal,
    figures: Arc<Figures>,
    /// Its subscriptions were refused; they are asked for again at the next reload.
    refused: bool,
    courier: Option<JoinHandle<()>>,
}

/// Where a webhook comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = WebhookSource)]
pub(crate) enum Source {
    /// The configuration file, where alone it can be changed.
    File,
    /// The API.
    Api,
}

/// A webhook as the API shows it.
pub(crate) struct View {
    pub(crate) declaration: Declaration,
    pub(crate) source: Source,
    pub(crate) figures: Snapshot,
    pub(crate) session: Option<ClientId>,
}

/// What is kept of a webhook made over the API.
#[derive(Serialize, Deserialize)]
struct Document {
    webhook: Declaration,
    /// Whose rights it has.
    user: Option<String>,
}

impl Webhooks {
    /// Which addresses may be gone to.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The one client of all webhooks. Certificates are always verified, redirects never followed, proxies of the
    /// environment never used.
    pub(super) fn client(&self) -> Result<Client, String> {
        let made = self.client.get_or_init(|| {
            Client::builder()
                .user_agent(concat!("waystation/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .dns_resolver(Arc::new(self.resolver.clone()))
                .build()
                .map_err(|error| format!("no HTTPS client: {error}"))
        });
        made.clone()
    }

    /// Makes the sessions of all webhooks, so that from the first message on nothing is missed.
    pub(crate) async fn open(&self, app: &App) {
        let _change = self.changes.lock().await;
        self.resolver.allow_private(app.config().allow_private_targets);
        for declaration in &app.config().webhook {
            self.put(app, declaration, Source::File, Principal::anonymous()).await;
        }
        for (name, document) in app.broker.kept(KIND) {
            match serde_json::from_slice(&document) {
                Ok(Document { webhook, user }) => self.put(app, &webhook, Source::Api, principal(user)).await,
                Err(error) => tracing::error!(webhook = %name, %error, "what was kept of it cannot be read"),
            }
        }
        self.end_orphans(app);
    }

    /// From now on messages are sent.
    pub(crate) fn start(&self, app: &App) {
        self.started.store(true, Ordering::Release);
        self.hooks.write().values_mut().for_each(|hook| hook.run(app));
    }

    /// Waits until what is under way has been answered, but no longer than the deadline.
    pub(crate) async fn stop(&self, deadline: Instant) {
        self.started.store(false, Ordering::Release);
        let deadline = deadline.checked_sub(RESERVE).unwrap_or(deadline);
        let couriers: Vec<_> = self.hooks.write().values_mut().filter_map(|hook| hook.courier.take()).collect();
        for mut courier in couriers {
            if tokio::time::timeout_at(deadline, &mut courier).await.is_err() {
                courier.abort();
            }
        }
    }

    /// Does as the file says now: what it changes is changed, what it no longer names ends, the rest is left alone.
    pub(crate) async fn reload(&self, app: &App, config: &Config) {
        let _change = self.changes.lock().await;
        self.resolver.allow_private(config.allow_private_targets);
        let named = |name: &str| config.webhook.iter().find(|declaration| declaration.name == name);
        let (mut gone, mut refused) = (Vec::new(), Vec::new());
        for (name, hook) in &*self.hooks.read() {
            if hook.source == Source::File && named(name).is_none() {
                gone.push(name.clone());
            } else if hook.refused && hook.source == Source::Api {
                refused.push((hook.declaration.clone(), hook.principal.clone()));
            }
        }
        for name in gone {
            self.end(app, &name).await;
        }
        for (declaration, principal) in refused {
            self.put(app, &declaration, Source::Api, principal).await;
        }
        for declaration in &config.webhook {
            let same = |hook: &Hook| hook.source == Source::File && !hook.refused && hook.declaration == *declaration;
            if !self.hooks.read().get(declaration.name.as_str()).is_some_and(same) {
                self.put(app, declaration, Source::File, Principal::anonymous()).await;
            }
        }
    }

    /// Makes or changes a webhook for whoever asks over the API. Gives whether it was made.
    pub(crate) async fn set(app: &App, mut declaration: Declaration, user: Option<String>) -> Result<bool, Problem> {
        // Before anything is locked: a name server may take its time. A name without an address may have one later.
        let webhook = check(&declaration)?;
        if let Err(error @ Unreachable::Private(_)) = app.webhooks.resolver.check(&webhook.url).await {
            return Err(Problem::Forbidden(format!("`url`: {error}")));
        }
        // On a task of its own: a caller who goes away in the middle must not leave a webhook half changed.
        let app = app.clone();
        let task = tokio::spawn(async move {
            let this = &app.webhooks;
            let _change = this.changes.lock().await;
            let before = this.before(&declaration.name)?;
            if declaration.secret.is_none() {
                declaration.secret = before.as_ref().and_then(|before| before.secret.clone());
            }
            let webhook = check(&declaration)?;
            let document = Document { webhook: declaration.clone(), user: user.clone() };
            let json = serde_json::to_vec(&document).map_err(|_| Problem::Internal)?;
            let kept = app.broker.kept(KIND).into_iter().find(|(name, _)| **name == *declaration.name);
            let lsn = app.broker.keep(KIND, &declaration.name, Some(json.into())).map_err(|_| Problem::StoreFull)?;
            match this.replace(&app, declaration.clone(), webhook, Source::Api, principal(user)).await {
                Ok(made) => {
                    app.broker.durable(lsn.max(made)).await;
                    Ok(before.is_none())
                }
                Err(problem) => {
                    // A store that has failed in between keeps the new one; it is refused again at the next start.
                    let _ = app.broker.keep(KIND, &declaration.name, kept.map(|(_, document)| document));
                    Err(problem)
                }
            }
        });
        task.await.unwrap_or(Err(Problem::Internal))
    }

    /// Ends a webhook for whoever asks over the API, with what waits for it.
    pub(crate) async fn remove(app: &App, name: String) -> Result<(), Problem> {
        let app = app.clone();
        let task = tokio::spawn(async move {
            let this = &app.webhooks;
            let _change = this.changes.lock().await;
            this.before(&name)?.ok_or(Problem::NoWebhook)?;
            let lsn = app.broker.keep(KIND, &name, None).map_err(|_| Problem::StoreFull)?;
            let ended = this.end(&app, &name).await;
            app.broker.durable(lsn.max(ended)).await;
            Ok(())
        });
        task.await.unwrap_or(Err(Problem::Internal))
    }

    /// One webhook.
    pub(crate) fn view(&self, name: &str) -> Option<View> {
        self.hooks.read().get(name).map(Hook::view)
    }

    /// Webhooks in the order of their names, after `after`, at most `limit`.
    pub(crate) fn views(&self, after: Option<&str>, limit: usize) -> Vec<View> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.hooks.read().range::<str, _>((from, Bound::Unbounded)).take(limit).map(|(_, hook)| hook.view()).collect()
    }

    /// The webhook of this name as the API may change it, if there is one.
    fn before(&self, name: &str) -> Result<Option<Declaration>, Problem> {
        let hooks = self.hooks.read();
        match hooks.get(name) {
            Some(hook) if hook.source == Source::File => Err(Problem::WebhookOfFile),
            Some(hook) => Ok(Some(hook.declaration.clone())),
            None if hooks.len() >= MOST_WEBHOOKS => {
                Err(Problem::QuotaExceeded(format!("there are {MOST_WEBHOOKS} webhooks, as many as there may be")))
            }
            None => Ok(None),
        }
    }

    /// Makes or changes a webhook that nobody waits for: what fails is logged, and shown as its last error.
    async fn put(&self, app: &App, declaration: &Declaration, source: Source, principal: Principal) {
        let name = &declaration.name;
        let other = self.hooks.read().get(name.as_str()).map(|hook| hook.source);
        match (other, source) {
            (Some(Source::File), Source::Api) => {
                return tracing::warn!(webhook = %name, "made over the API, and hidden by one of the file");
            }
            (Some(Source::Api), Source::File) => {
                tracing::warn!(webhook = %name, "made over the API, and now replaced by one of the file");
            }
            _ => {}
        }
        let webhook = match declaration.check() {
            Ok(webhook) => webhook,
            Err(wrong) => return tracing::error!(webhook = %name, "`{}` {}", wrong.key, wrong.why),
        };
        let replaced = self.replace(app, declaration.clone(), webhook.clone(), source, principal.clone()).await;
        let Err(problem) = replaced else { return };
        tracing::error!(webhook = %name, ?problem, "gets no messages");
        // It is shown, with what is wrong.
        let mut hooks = self.hooks.write();
        let figures = hooks.get(name.as_str()).map(|hook| Arc::clone(&hook.figures)).unwrap_or_default();
        figures.failed(problem.details().detail, app.broker.now(), None);
        let hook = Hook {
            declaration: declaration.clone(),
            webhook,
            source,
            principal,
            figures,
            refused: true,
            courier: None,
        };
        hooks.insert(name.as_str().into(), hook);
    }

    /// Puts a webhook in place of the one of its name, if there is one. If its subscriptions are refused, nothing has
    /// changed.
    async fn replace(
        &self,
        app: &App,
        declaration: Declaration,
        webhook: Webhook,
        source: Source,
        principal: Principal,
    ) -> Result<Lsn, Problem> {
        // Two couriers must not work on one session.
        let courier = self.hooks.write().get_mut(&webhook.name).and_then(|hook| hook.courier.take());
        if let Some(courier) = courier {
            courier.abort();
            // It was aborted: there is nothing to hear of it.
            let _ = courier.await;
        }
        let subscribed = prepare(app, &webhook, &principal).await;
        let mut hooks = self.hooks.write();
        let lsn = match subscribed {
            Ok(lsn) => lsn,
            Err(problem) => {
                if let Some(hook) = hooks.get_mut(&webhook.name).filter(|_| self.started.load(Ordering::Acquire)) {
                    hook.run(app);
                }
                return Err(problem);
            }
        };
        let name = webhook.name.clone();
        let figures = hooks.get(&name).map(|hook| Arc::clone(&hook.figures)).unwrap_or_default();
        let mut hook = Hook { declaration, webhook, source, principal, figures, refused: false, courier: None };
        if self.started.load(Ordering::Acquire) {
            hook.run(app);
        }
        hooks.insert(name, hook);
        Ok(lsn)
    }

    /// Ends a webhook and its session. Dead letters stay until they are read.
    async fn end(&self, app: &App, name: &str) -> Lsn {
        let hook = self.hooks.write().remove(name);
        if let Some(courier) = hook.and_then(|hook| hook.courier) {
            courier.abort();
            let _ = courier.await;
        }
        dead::letters(app, name).close();
        session_id(name).and_then(|id| app.broker.end_session(&id, Reason::SessionEnded)).unwrap_or_default()
    }

    /// A webhook that was taken out of the file while the server was down has left its session behind.
    fn end_orphans(&self, app: &App) {
        let mut after = ClientId::new(SESSIONS);
        let hooks = self.hooks.read();
        while let Some(session) = app.broker.sessions(after.as_ref(), 1).pop() {
            let Some(name) = session.id.as_str().strip_prefix(SESSIONS) else { break };
            if !hooks.contains_key(name) {
                app.broker.end_session(&session.id, Reason::SessionEnded);
            }
            after = Some(session.id);
        }
    }
}

fn check(declaration: &Declaration) -> Result<Webhook, Problem> {
    declaration.check().map_err(|wrong| Problem::BadBody(format!("`{}` {}", wrong.key, wrong.why)))
}

/// Makes the webhook's session, and the one for its dead letters, and subscribes.
async fn prepare(app: &App, webhook: &Webhook, principal: &Principal) -> Result<Lsn, Problem> {
    let dead = dead::letters(app, &webhook.name).open().await?;
    let attached = app.broker.attach(courier::hello(app, &webhook.name, principal)).await?;
    let mut link = attached.link;
    match subscribe(&mut link, webhook.subscriptions.clone()) {
        Ok(lsn) => Ok(lsn.max(attached.lsn).max(dead)),
        Err(refused) => {
            drop(link);
            if !attached.resumed {
                dead::letters(app, &webhook.name).close();
                session_id(&webhook.name).and_then(|id| app.broker.end_session(&id, Reason::SessionEnded));
            }
            Err(refused.into())
        }
    }
}

/// Whose rights a webhook has: those of the user who made it, without the end of that user's token.
fn principal(user: Option<String>) -> Principal {
    user.map_or_else(Principal::anonymous, |name| Principal::user(&name, None))
}

impl Hook {
    /// Sets its courier to work.
    fn run(&mut self, app: &App) {
        if self.refused || self.courier.is_some() {
            return;
        }
        let courier = Courier {
            app: app.clone(),
            webhook: self.webhook.clone(),
            principal: self.principal.clone(),
            figures: Arc::clone(&self.figures),
            failing: None,
        };
        self.courier = Some(tokio::spawn(courier.run()));
    }

    fn view(&self) -> View {
        View {
            declaration: self.declaration.clone(),
            source: self.source,
            figures: self.figures.snapshot(),
            session: session_id(&self.webhook.name),
        }
    }
}
