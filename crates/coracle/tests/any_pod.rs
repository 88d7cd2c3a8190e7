//! Whatever a pod asks for, the node comes to a defined end with it: properties over arbitrary specs, most of which an API
//! server would refuse.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{
    Action, Admission, Cause, Digest, Event, Exit, Host, ImageContent, ImageKind, ImageModule, LocalImage,
    NodeView, Observed, PodUid, Provider, Resident, Verdict, apply, checkpoint, govern, notices, plan,
    recover, status,
};
use coracle_testing::arbitrary;
use coracle_wasi_provider::{Settings, WasiProvider};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use serde_json::json;

/// More turns than any pod takes whose containers end when they are asked to.
const TURNS: usize = 500;

fn provider() -> &'static WasiProvider {
    static PROVIDER: LazyLock<WasiProvider> = LazyLock::new(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("any-pod");
        WasiProvider::new(Settings::new(cache, "coracle")).unwrap()
    });
    &PROVIDER
}

fn view() -> NodeView {
    let allocatable = json!({"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "3"});
    let node = json!({"metadata": {"name": "n1"}, "status": {"allocatable": allocatable}});
    let mut view = NodeView::default();
    view.learn(&serde_json::from_value::<Node>(node).unwrap());
    view
}

fn host() -> Host {
    Host { runtime: "test".to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()] }
}

fn pod(uid: &str, bytes: &[u8]) -> Pod {
    let metadata = json!({"name": uid, "namespace": "default", "uid": uid});
    let spec: PodSpec = arbitrary::value(bytes).unwrap();
    Pod { metadata: serde_json::from_value(metadata).unwrap(), spec: Some(spec), status: None }
}

fn image() -> LocalImage {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let module = ImageModule { digest: digest.clone(), path: "/m".into(), name: "m".to_owned() };
    LocalImage {
        digest,
        reference: "r/app:1".to_owned(),
        repo_digest: "r/app@0".to_owned(),
        content: ImageContent::Program(module),
        size: 1,
    }
}

/// A pod on a node on which all goes well, or ill where a byte is odd.
struct Life<'a> {
    observed: Observed,
    shown: PodStatus,
    now: Timestamp,
    fates: &'a [u8],
    coming: VecDeque<Event>,
    is_forgotten: bool,
}

impl<'a> Life<'a> {
    fn new(pod: Pod, admission: Admission, fates: &'a [u8]) -> Self {
        let coming = VecDeque::from([Event::Judged(admission)]);
        let now = Timestamp::constant(1_767_225_600, 0);
        let observed = Observed::new(Arc::new(pod), Arc::new(host()));
        Self { observed, shown: PodStatus::default(), now, fates, coming, is_forgotten: false }
    }

    /// Lives for so many turns, or until nothing is left of the pod.
    fn live(&mut self, turns: usize) {
        for _ in 0..turns {
            let Some(event) = self.next() else { break };
            let told = event.clone();
            apply(&mut self.observed, event, self.now);
            let _ = notices(&self.observed, &told);
            self.act();
            self.publish();
            if self.is_forgotten {
                break;
            }
        }
    }

    /// What happens next, or that the time came at which the pod asks to be looked at; `None` when it waits for nothing.
    fn next(&mut self) -> Option<Event> {
        self.coming.pop_front().or_else(|| {
            self.now = self.now.max(plan(&self.observed, self.now).wake?);
            Some(Event::Woke)
        })
    }

    /// Goes round as a worker does, until nothing more is to be begun.
    fn act(&mut self) {
        for round in 0.. {
            assert!(round < 10, "the plan has no end: {:?}", self.observed);
            let actions = plan(&self.observed, self.now).actions;
            if actions.is_empty() || self.is_forgotten {
                break;
            }
            for action in &actions {
                apply(&mut self.observed, Event::Began(action.clone()), self.now);
            }
            let again = plan(&self.observed, self.now).actions;
            let is_new = |action: &Action| !actions.contains(action) || *action == Action::Forget;
            assert!(again.iter().all(is_new), "{actions:?}, and then {again:?}");
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn goes_well(&mut self) -> bool {
        let Some((fate, rest)) = self.fates.split_first() else { return true };
        self.fates = rest;
        fate.is_multiple_of(2)
    }

    fn perform(&mut self, action: Action) {
        let well = self.goes_well();
        let message = || "no".to_owned();
        let event = match action {
            Action::Mount if well => Event::Mounted,
            Action::Mount => Event::MountFailed { message: message() },
            Action::Fetch { container } if well => {
                Event::Fetched { container, image: Box::new(image()), kind: ImageKind(String::new()) }
            }
            Action::Fetch { container } => {
                Event::FetchFailed { container, reason: Waiting::ErrImagePull, message: message() }
            }
            Action::Start { container, .. } if well => Event::Started { container },
            Action::Start { container, .. } => {
                Event::StartFailed { container, reason: Waiting::RunContainerError, message: message() }
            }
            Action::Stop { container, .. } => self.exit(container, Cause::Stopped),
            Action::RunHook { container, attempt, hook } => {
                Event::HookEnded { container, attempt, hook, succeeded: well }
            }
            Action::Probe { container, attempt, kind } => {
                Event::Probed { container, attempt, kind, healthy: well }
            }
            Action::Refresh => Event::Refreshed,
            Action::Unmount => Event::Unmounted,
            Action::Delete => {
                self.coming.push_back(Event::Deleted);
                Event::Removed
            }
            Action::Forget => return self.is_forgotten = true,
            _ => return,
        };
        if let Event::Started { container } = &event
            && !self.goes_well()
        {
            let exit = self.exit(container.clone(), Cause::Exited(1));
            self.coming.push_back(event);
            self.coming.push_back(exit);
        } else {
            self.coming.push_back(event);
        }
    }

    fn exit(&self, container: String, cause: Cause) -> Event {
        let attempt = self.observed.container(&container).unwrap().attempt;
        let exit = Exit { cause, message: None, started_at: self.now, finished_at: self.now };
        Event::Exited { container, attempt, exit }
    }

    fn publish(&mut self) {
        let next = status(&self.observed, &self.shown, self.now);
        assert_eq!(next, status(&self.observed, &next, self.now), "a status is what it is");
        if next != self.shown {
            let terminal = coracle_lifecycle::is_final(&self.observed, &next);
            self.shown = next;
            self.coming.push_back(Event::Published { terminal });
        }
    }

    /// The agent is killed and comes back: what it remembers is what it wrote.
    fn kill(&mut self) {
        let saved = serde_json::to_vec(&checkpoint(&self.observed)).unwrap();
        let saved = serde_json::from_slice(&saved).unwrap();
        let (pod, host) = (Arc::clone(&self.observed.pod), Arc::clone(&self.observed.host));
        self.observed = recover(pod, host, Some(&saved), &[], self.now);
        // Of what it had written, the next agent cannot know what has arrived.
        self.shown = PodStatus::default();
        self.coming.clear();
        self.coming.push_back(Event::Woke);
    }

    fn delete(&mut self) {
        let mut pod = self.observed.pod.as_ref().clone();
        pod.metadata.deletion_timestamp = Some(Time(self.now));
        self.coming.push_back(Event::Wished(Arc::new(pod)));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..1500)
}

/// As many pods as `PROPTEST_CASES` says: CI asks for many.
fn config() -> ProptestConfig {
    let rng_algorithm = RngAlgorithm::XorShift;
    ProptestConfig { failure_persistence: None, rng_algorithm, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_pod_is_judged(first in bytes(), second in bytes()) {
        let mut view = view();
        let taken = pod("first", &first);
        let _ = provider().accepts(&taken);
        let _ = govern(&view, &taken);
        view.residents.insert(PodUid::new("first"), Resident::of(&taken));
        if let Verdict::Judged(Admission::Refused { reason, message }) = govern(&view, &pod("second", &second)) {
            prop_assert!(!reason.is_empty() && !message.is_empty());
        }
    }

    #[test]
    fn any_pod_lives_and_is_gone_when_it_is_deleted(spec in bytes(), fates in bytes(), early in 0..60_usize) {
        let mut life = Life::new(unique(pod("p", &spec)), Admission::Admitted, &fates);
        life.live(early);
        life.kill();
        life.live(early);
        life.delete();
        life.live(TURNS);
        prop_assert!(life.is_forgotten, "still here: {:?}", life.observed);
        prop_assert!(!life.observed.is_active());
    }
}

/// Containers have names of their own: the API server sees to that, and everything is found by them.
fn unique(mut pod: Pod) -> Pod {
    let spec = pod.spec.get_or_insert_default();
    let lists = [spec.init_containers.get_or_insert_default(), &mut spec.containers];
    for (number, container) in lists.into_iter().flatten().enumerate() {
        container.name = format!("c{number}");
    }
    for (number, container) in spec.ephemeral_containers.iter_mut().flatten().enumerate() {
        container.name = format!("e{number}");
    }
    pod
}
