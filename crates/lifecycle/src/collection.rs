use jiff::{SignedDuration, Timestamp};

use crate::Digest;

/// An image on a node, and when it was needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// When the node first saw it.
    pub found: Timestamp,
    /// When a pod last used it; when it was found if none has.
    pub used: Timestamp,
    /// Whether a pod uses it now.
    pub is_in_use: bool,
}

/// How full the disk of images is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it can hold.
    pub capacity: u64,
    /// What it can still take.
    pub available: u64,
}

/// When images go (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionRules {
    /// How full the disk must be, in percent, for images to go.
    pub high: u8,
    /// How full it is then left.
    pub low: u8,
    /// How long an image stays at least after it was found.
    pub least_age: SignedDuration,
    /// How long an image that nobody uses stays at most; zero for any time.
    pub most_age: SignedDuration,
}

impl Default for CollectionRules {
    /// As the kubelet's: from 85 % to 80 %, after two minutes, never because of their age alone.
    fn default() -> Self {
        Self { high: 85, low: 80, least_age: SignedDuration::from_mins(2), most_age: SignedDuration::ZERO }
    }
}

/// Which images are to go, the first first, until enough is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Those that nobody has used for too long: all of them go.
    pub aged: Vec<Digest>,
    /// Those that may go to make room, the longest unused first, each with its size.
    pub candidates: Vec<(Digest, u64)>,
    /// How many bytes are to become free by them.
    pub wanted: u64,
}

/// What is to go of `images`, none of which is in use.
#[must_use]
pub fn collect(images: &[HeldImage], fill: Fill, rules: CollectionRules, now: Timestamp) -> Collection {
    let unused = images.iter().filter(|image| !image.is_in_use);
    let is_aged = |image: &HeldImage| {
        rules.most_age > SignedDuration::ZERO && now.duration_since(image.used) > rules.most_age
    };
    let (aged, mut rest): (Vec<_>, Vec<_>) = unused.partition(|image| is_aged(image));
    rest.retain(|image| now.duration_since(image.found) >= rules.least_age);
    rest.sort_by_key(|image| (image.used, image.found));
    let wanted = wanted(fill, rules);
    let candidates = rest.into_iter().filter(|_| wanted > 0);
    Collection {
        aged: aged.into_iter().map(|image| image.digest.clone()).collect(),
        candidates: candidates.map(|image| (image.digest.clone(), image.size)).collect(),
        wanted,
    }
}

/// The bytes that are to become free, when the disk is full enough for it.
fn wanted(Fill { capacity, available }: Fill, rules: CollectionRules) -> u64 {
    let percent = |percent: u8| u128::from(capacity) * u128::from(percent) / 100;
    let used = u128::from(capacity.saturating_sub(available));
    if capacity == 0 || used < percent(rules.high) {
        return 0;
    }
    u64::try_from(used.saturating_sub(percent(rules.low))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn digest(mark: u8) -> Digest {
        Digest::parse(&format!("sha256:{}", format!("{mark:02x}").repeat(32))).unwrap()
    }

    /// Found and last used in these minutes.
    fn image(mark: u8, found: i64, used: i64) -> HeldImage {
        HeldImage { digest: digest(mark), size: 10, found: at(found), used: at(used), is_in_use: false }
    }

    fn check(images: &[HeldImage], used: u64, rules: CollectionRules, aged: &[u8], candidates: &[u8]) -> u64 {
        let fill = Fill { capacity: 100, available: 100 - used };
        let collection = collect(images, fill, rules, at(100));
        assert_eq!(collection.aged, aged.iter().map(|mark| digest(*mark)).collect::<Vec<_>>());
        let going: Vec<Digest> = collection.candidates.into_iter().map(|(digest, _)| digest).collect();
        assert_eq!(going, candidates.iter().map(|mark| digest(*mark)).collect::<Vec<_>>());
        collection.wanted
    }

    #[test]
    fn the_longest_unused_go_first_when_the_disk_is_full() {
        let rules = CollectionRules::default();
        let in_use = HeldImage { is_in_use: true, ..image(1, 0, 0) };
        let images = [in_use, image(2, 0, 50), image(3, 0, 20), image(4, 99, 99), image(5, 10, 20)];
        assert_eq!(check(&images, 84, rules, &[], &[]), 0);
        assert_eq!(check(&images, 85, rules, &[], &[3, 5, 2]), 5);
        assert_eq!(check(&images, 100, rules, &[], &[3, 5, 2]), 20);
    }

    #[test]
    fn what_nobody_used_for_too_long_goes_however_empty_the_disk_is() {
        let rules = CollectionRules { most_age: SignedDuration::from_mins(30), ..CollectionRules::default() };
        let in_use = HeldImage { is_in_use: true, ..image(1, 0, 0) };
        check(&[in_use, image(2, 0, 69), image(3, 0, 70), image(4, 0, 90)], 0, rules, &[2], &[]);
    }

    #[test]
    fn a_disk_of_which_nothing_is_known_is_not_full() {
        let fill = Fill { capacity: 0, available: 0 };
        assert_eq!(collect(&[image(1, 0, 0)], fill, CollectionRules::default(), at(100)).wanted, 0);
    }
}
