//! Whose place a critical pod takes.

use std::collections::HashMap;

use crate::PodUid;
use crate::resident::Resident;

/// So much of a resource is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) resource: String,
    pub(crate) missing: u64,
}

type Candidate<'a> = (&'a PodUid, &'a Resident);

/// The fewest and least pods whose end covers the shortages: guaranteed pods only where burstable and best-effort ones do
/// not do, and burstable ones only where best-effort ones do not.
///
/// # Errors
/// What stays missing when all that `critical` may take the place of were gone.
pub(crate) fn victims(
    critical: &Resident,
    residents: &HashMap<PodUid, Resident>,
    shortages: &[Shortage],
) -> Result<Vec<PodUid>, Vec<Shortage>> {
    let mut candidates: Vec<Candidate<'_>> =
        residents.iter().filter(|(_, resident)| gives_way(resident, critical)).collect();
    candidates.sort_by_key(|(uid, _)| *uid);
    let of_class = |class: &str| -> Vec<Candidate<'_>> {
        candidates.iter().filter(|(_, resident)| resident.class == class).copied().collect()
    };
    let (best_effort, burstable) = (of_class("BestEffort"), of_class("Burstable"));
    let guaranteed = nearest(of_class("Guaranteed"), less(&less(shortages, &best_effort), &burstable))?;
    let burstable = nearest(burstable, less(&less(shortages, &best_effort), &guaranteed))?;
    let best_effort = nearest(best_effort, less(&less(shortages, &burstable), &guaranteed))?;
    let chosen = best_effort.into_iter().chain(burstable).chain(guaranteed);
    Ok(chosen.map(|(uid, _)| uid.clone()).collect())
}

fn gives_way(resident: &Resident, critical: &Resident) -> bool {
    let is_lower = || resident.priority.zip(critical.priority).is_some_and(|(theirs, ours)| theirs < ours);
    critical.is_critical && !resident.is_critical || is_lower()
}

/// What is missing still when these are gone.
fn less(shortages: &[Shortage], gone: &[Candidate<'_>]) -> Vec<Shortage> {
    let freed = |resource: &str| {
        gone.iter().map(|(_, resident)| resident.holds(resource)).fold(0, u64::saturating_add)
    };
    shortages
        .iter()
        .map(|shortage| Shortage {
            missing: shortage.missing.saturating_sub(freed(&shortage.resource)),
            resource: shortage.resource.clone(),
        })
        .filter(|shortage| shortage.missing > 0)
        .collect()
}

/// One after the other, those that leave the least missing; of two that leave the same, the one with the smaller request.
fn nearest(
    mut candidates: Vec<Candidate<'_>>,
    mut shortages: Vec<Shortage>,
) -> Result<Vec<Candidate<'_>>, Vec<Shortage>> {
    let mut chosen = Vec::new();
    while !shortages.is_empty() {
        let best = (0..candidates.len()).min_by(|a, b| {
            let (a, b) = (candidates[*a].1, candidates[*b].1);
            let distances = distance(&shortages, a).total_cmp(&distance(&shortages, b));
            let request = |resident: &Resident| (resident.promised.memory, resident.promised.cpu);
            distances.then_with(|| request(a).cmp(&request(b)))
        });
        let Some(best) = best else { return Err(shortages) };
        let candidate = candidates.remove(best);
        shortages = less(&shortages, &[candidate]);
        chosen.push(candidate);
    }
    Ok(chosen)
}

/// How far a pod's end is from what is missing; each resource weighs the same.
fn distance(shortages: &[Shortage], resident: &Resident) -> f64 {
    let part = |shortage: &Shortage| {
        let left = shortage.missing.saturating_sub(resident.holds(&shortage.resource));
        (as_measure(left) / as_measure(shortage.missing)).powi(2)
    };
    shortages.iter().map(part).sum()
}

#[expect(clippy::cast_precision_loss, reason = "a measure to compare by, not an amount")]
fn as_measure(amount: u64) -> f64 {
    amount as f64
}
