//! Properties of the pod's circle, over random lives in a small world: see `world` for what it does and checks.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use world::{Extras, Move, Policy, World};

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => any::<bool>().prop_map(Move::Judge),
        20 => (any::<u8>(), any::<u8>()).prop_map(|(which, how)| Move::Finish { which, how }),
        4 => (0..400_000_u32).prop_map(Move::Wait),
        1 => (0..10_000_u32).prop_map(Move::SetBack),
        1 => (-10_000..10_000_i32).prop_map(Move::SetClock),
        8 => Just(Move::Wake),
        6 => Just(Move::Publish),
        4 => Just(Move::Echo),
        1 => Just(Move::Stale),
        2 => Just(Move::Relabel),
        2 => Just(Move::News),
        2 => any::<u8>().prop_map(Move::ChangeImage),
        1 => Just(Move::Debug),
        1 => (0..40_i64).prop_map(Move::Delete),
        1 => Just(Move::Remove),
        1 => Just(Move::ShutDown),
        1 => Just(Move::Preempt),
        1 => (0..40_u64).prop_map(Move::StopMachine),
        1 => (0..2_000_i64).prop_map(Move::SetDeadline),
        1 => any::<bool>().prop_map(Move::SetPhase),
        2 => Just(Move::Kill),
    ];
    prop::collection::vec(one, 0..120)
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Always), Just(Policy::OnFailure), Just(Policy::Never)]
}

fn extras() -> impl Strategy<Value = Extras> {
    (any::<[Option<bool>; 3]>(), any::<bool>(), any::<bool>()).prop_map(|(init, care, rules)| Extras {
        init,
        care,
        rules,
    })
}

/// As many lives as `PROPTEST_CASES` says: CI asks for many. The quick generator of numbers is the one that costs less than
/// the lives themselves where nothing is optimised.
fn config() -> ProptestConfig {
    let rng_algorithm = RngAlgorithm::XorShift;
    ProptestConfig { failure_persistence: None, rng_algorithm, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_life_breaks_a_promise(policy in policies(), containers in 1..4_usize, extras in extras(), moves in moves()) {
        let mut world = World::new(policy, containers, extras);
        for step in moves {
            world.go(step);
        }
    }

    #[test]
    fn deletion_always_ends(policy in policies(), containers in 1..4_usize, extras in extras(), moves in moves()) {
        let mut world = World::new(policy, containers, extras);
        for step in moves {
            world.go(step);
        }
        world.go(Move::Kill);
        world.go(Move::Delete(30));
        world.be_kind();
        prop_assert!(world.is_forgotten(), "{:?}", world.observed());
    }

    #[test]
    fn a_shutdown_comes_to_rest(policy in policies(), containers in 1..4_usize, extras in extras(), moves in moves()) {
        let mut world = World::new(policy, containers, extras);
        for step in moves {
            world.go(step);
        }
        world.go(Move::ShutDown);
        world.be_kind();
        prop_assert!(world.is_forgotten() || !world.observed().is_busy(), "{:?}", world.observed());
    }

    #[test]
    fn what_is_not_supported_never_runs(policy in policies(), moves in moves()) {
        let mut world = World::unsupported(policy);
        for step in moves {
            world.go(step);
        }
        prop_assert_eq!(world.starts(), 0);
        world.go(Move::Kill);
        world.go(Move::Delete(30));
        world.be_kind();
        prop_assert!(world.is_forgotten(), "{:?}", world.observed());
    }
}

/// Random lives are of use only if they get somewhere.
#[test]
fn a_kind_world_runs_a_job() {
    let mut world =
        World::new(Policy::Never, 2, Extras { init: [Some(false), Some(true), None], ..Extras::default() });
    world.go(Move::Judge(true));
    world.be_kind();
    // The sidecar may end at any time, and is started again.
    assert!(world.starts() >= 4, "{}", world.starts());
    assert_eq!(world.phase(), "Succeeded");
}
