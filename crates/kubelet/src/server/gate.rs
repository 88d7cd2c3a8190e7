use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::attributes::Attributes;
use super::identity::User;

/// For so long a permission is remembered, as the kubelet does.
const ALLOWED_FOR: Duration = Duration::from_mins(5);

/// For so long a refusal is remembered.
const DENIED_FOR: Duration = Duration::from_secs(30);

/// How many answers are remembered.
const REMEMBERED: usize = 1024;

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets a request pass whose maker is known and whom the API server allows it.
#[derive(Clone)]
pub struct Gate {
    reviews: Api<SubjectAccessReview>,
    node: String,
    answers: Arc<Mutex<HashMap<Question, Answer>>>,
}

/// One question to the API server.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    user: User,
    verb: &'static str,
    subresource: &'static str,
}

#[derive(Clone, Copy)]
struct Answer {
    is_allowed: bool,
    until: Instant,
}

/// Why a request does not pass: the code and the text of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) text: String,
}

impl Gate {
    /// The gate of a node, which asks by `client`. A node has the right to ask.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        Self { reviews: Api::all(client), node: node.to_owned(), answers: Arc::default() }
    }

    /// Whether a request may pass; `user` is `None` when no valid certificate came with it.
    pub(super) async fn admit(
        &self,
        user: Option<&User>,
        method: &Method,
        path: &str,
    ) -> Result<(), Refusal> {
        let Some(user) = user else {
            return Err(Refusal { code: StatusCode::UNAUTHORIZED, text: "Unauthorized".to_owned() });
        };
        let attributes = Attributes::of(method, path);
        for &subresource in attributes.subresources {
            let question = Question { user: user.clone(), verb: attributes.verb, subresource };
            match self.ask(question).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(forbidden(user, &attributes))
    }

    async fn ask(&self, question: Question) -> Result<bool, Refusal> {
        if let Some(answer) = self.remembered(&question) {
            return Ok(answer);
        }
        let review = self.review(&question);
        let parameters = PostParams::default();
        let answer = timeout(PATIENCE, self.reviews.create(&parameters, &review)).await;
        let is_allowed = match answer {
            Ok(Ok(review)) => review.status.is_some_and(|status| status.allowed),
            Ok(Err(error)) => {
                warn!(%error, user = question.user.name, "a request cannot be authorized");
                return Err(unanswered(&question));
            }
            Err(_) => {
                warn!(user = question.user.name, "a request cannot be authorized: no answer in time");
                return Err(unanswered(&question));
            }
        };
        self.remember(question, is_allowed);
        Ok(is_allowed)
    }

    fn review(&self, question: &Question) -> SubjectAccessReview {
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(question.user.name.clone()),
                groups: Some(question.user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(question.verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(question.subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }

    fn remembered(&self, question: &Question) -> Option<bool> {
        let answers = self.answers.lock();
        let answer = answers.get(question).filter(|answer| Instant::now() < answer.until)?;
        Some(answer.is_allowed)
    }

    fn remember(&self, question: Question, is_allowed: bool) {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED {
            answers.retain(|_, answer| now < answer.until);
        }
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        let until = now + if is_allowed { ALLOWED_FOR } else { DENIED_FOR };
        answers.insert(question, Answer { is_allowed, until });
    }
}

fn forbidden(user: &User, attributes: &Attributes) -> Refusal {
    let text = format!(
        "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
        user.name,
        attributes.verb,
        attributes.subresources.join(" ")
    );
    Refusal { code: StatusCode::FORBIDDEN, text }
}

fn unanswered(question: &Question) -> Refusal {
    let text = format!(
        "Authorization error (user={}, verb={}, resource=nodes, subresource={})",
        question.user.name, question.verb, question.subresource
    );
    Refusal { code: StatusCode::INTERNAL_SERVER_ERROR, text }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
