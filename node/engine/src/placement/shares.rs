//! How much a node's fair share is, and how far from it a node may be.
//!
//! Without zones and weights the share is the mean: replicas divided by nodes. Two things bend it. A row may not use one
//! node twice, so no node can hold more than one replica of each; and a row spreads over the zones, so a zone can hold at
//! most its seats in each row. Picture water poured into vessels that stand as wide as their weight: it rises evenly, and
//! what overflows one that is full goes to the others. Zones are filled first, then the nodes of each zone from what the
//! zone got.
//!
//! The band around the share is 10 % either way, widened to whole replicas: [`Band::high`] is `ceil(1.1 share)`,
//! [`Band::low`] is `floor(0.9 share)`. Within it nothing is moved; but what is moved goes where numbers are closest to
//! the share, so that a table stays away from the edges and a small change of the share asks for few moves. An assignment within all bands always exists: the shares themselves are one, in
//! fractions, and where fractions fit between whole bounds, whole numbers do.
//!
//! All of it is in fractions of whole numbers, so that every build of every machine gets the same bands.

use std::collections::BTreeMap;

/// What is said of one node's number; the four never fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Below it, the node is given more.
    pub low: u32,
    /// The share, rounded down and up: what a number should be when it changes anyway.
    pub below: u32,
    pub above: u32,
    /// Above it, something is taken away.
    pub high: u32,
}

/// The bounds of an assignment of seats to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// By node.
    pub bands: Vec<Band>,
    /// By zone: how many seats of one row.
    pub seats: BTreeMap<usize, u32>,
}

/// Shares of `rows` rows of `per_row` seats each. A node is (zone, weight).
pub fn replicas(nodes: &[(usize, u32)], rows: u32, per_row: u32) -> Shares {
    let zones = by_zone(nodes);
    let seats = seats(&zones, per_row);
    let limits: Vec<_> = zones.iter().map(|(zone, held)| (weight(nodes, held), seats[zone] * rows)).collect();
    let mut bands = vec![Fraction::whole(0).band(); nodes.len()];
    let poured = pour(Fraction::whole(rows * per_row), &limits);
    for (held, zone_share) in zones.values().zip(poured) {
        let limits: Vec<_> = held.iter().map(|&node| (nodes[node].1, rows)).collect();
        for (&node, share) in held.iter().zip(pour(zone_share, &limits)) {
            bands[node] = share.band();
        }
    }
    Shares { bands, seats }
}

/// Shares of the leaders of `rows` rows: zones do not matter.
pub fn leaders(nodes: &[(usize, u32)], rows: u32) -> Vec<Band> {
    let limits: Vec<_> = nodes.iter().map(|&(_, weight)| (weight, rows)).collect();
    pour(Fraction::whole(rows), &limits).into_iter().map(Fraction::band).collect()
}

fn by_zone(nodes: &[(usize, u32)]) -> BTreeMap<usize, Vec<usize>> {
    let mut zones: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (node, &(zone, _)) in nodes.iter().enumerate() {
        zones.entry(zone).or_default().push(node);
    }
    zones
}

/// Every zone has as many seats of a row as the most even spread needs, and not more than nodes.
fn seats(zones: &BTreeMap<usize, Vec<usize>>, per_row: u32) -> BTreeMap<usize, u32> {
    let within = |most: u32| zones.iter().map(move |(&zone, held)| (zone, most.min(held.len() as u32)));
    let most = (1..per_row).find(|&most| within(most).map(|(_, seats)| seats).sum::<u32>() >= per_row);
    within(most.unwrap_or(per_row)).collect()
}

fn weight(nodes: &[(usize, u32)], held: &[usize]) -> u32 {
    held.iter().map(|&node| nodes[node].1).sum()
}

/// Divides `total` by weight, none above its limit. What the limits cannot take is left out.
fn pour(total: Fraction, vessels: &[(u32, u32)]) -> Vec<Fraction> {
    let mut shares = vec![None; vessels.len()];
    let mut rest = total;
    loop {
        let open = || (0..vessels.len()).filter(|&vessel| shares[vessel].is_none());
        let weight: u32 = open().map(|vessel| vessels[vessel].0).sum();
        let full: Vec<_> =
            open().filter(|&vessel| rest.times(vessels[vessel].0, weight).exceeds(vessels[vessel].1)).collect();
        if full.is_empty() {
            let share =
                |(vessel, share): (usize, Option<Fraction>)| share.unwrap_or(rest.times(vessels[vessel].0, weight));
            return shares.into_iter().enumerate().map(share).collect();
        }
        for vessel in full {
            shares[vessel] = Some(Fraction::whole(vessels[vessel].1));
            rest = rest.less(vessels[vessel].1);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    over: u128,
    under: u128,
}

impl Fraction {
    fn whole(number: u32) -> Self {
        Self { over: number.into(), under: 1 }
    }

    fn times(self, over: u32, under: u32) -> Self {
        Self { over: self.over * u128::from(over), under: self.under * u128::from(under.max(1)) }
    }

    fn less(self, number: u32) -> Self {
        Self { over: self.over.saturating_sub(u128::from(number) * self.under), under: self.under }
    }

    fn exceeds(self, number: u32) -> bool {
        self.over > u128::from(number) * self.under
    }

    fn band(self) -> Band {
        let (low, below) = (self.over * 9 / (self.under * 10), self.over / self.under);
        let (above, high) = (self.over.div_ceil(self.under), (self.over * 11).div_ceil(self.under * 10));
        // Shares are at most the number of partitions.
        Band { low: low as u32, below: below as u32, above: above as u32, high: high as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(bands: &[Band]) -> Vec<(u32, u32)> {
        bands.iter().map(|band| (band.low, band.high)).collect()
    }

    #[test]
    fn the_share_without_zones_and_weights_is_the_mean() {
        let even = |nodes, rows, per_row| replicas(&vec![(0, 1); nodes], rows, per_row).bands[0];
        let band = |low, below, above, high| Band { low, below, above, high };
        assert_eq!(even(3, 16, 3), band(14, 16, 16, 18));
        assert_eq!(even(10, 100, 1), band(9, 10, 10, 11));
        assert_eq!(even(100, 128, 3), band(3, 3, 4, 5));
        assert_eq!(even(30, 16, 3), band(1, 1, 2, 2));
        assert_eq!(even(1, 16, 1), band(14, 16, 16, 18));
        assert_eq!(leaders(&[(0, 1); 100], 128)[0], band(1, 1, 2, 2));
        assert_eq!(leaders(&[(0, 1); 30], 16)[0], band(0, 0, 1, 1));
    }

    #[test]
    fn a_node_holds_no_more_than_one_replica_of_each_row() {
        let shares = replicas(&[(0, 8), (0, 1), (0, 1), (0, 1)], 10, 3);
        assert_eq!(edges(&shares.bands), [(9, 11), (6, 8), (6, 8), (6, 8)]);
    }

    #[test]
    fn a_small_zone_fills_up_and_the_others_share_the_rest() {
        let mut nodes = vec![(0, 1), (1, 1)];
        nodes.extend([(2, 1); 8]);
        let shares = replicas(&nodes, 16, 3);
        assert_eq!(shares.seats, BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
        assert_eq!(edges(&shares.bands)[..3], [(14, 18), (14, 18), (1, 3)]);
    }

    #[test]
    fn seats_are_as_even_as_the_zones_allow() {
        let seats_of = |zones: &[usize], per_row| {
            let nodes: Vec<_> = zones.iter().enumerate().flat_map(|(zone, &count)| vec![(zone, 1); count]).collect();
            replicas(&nodes, 4, per_row).seats.into_values().collect::<Vec<_>>()
        };
        assert_eq!(seats_of(&[3, 3, 3], 3), [1, 1, 1]);
        assert_eq!(seats_of(&[3, 3], 3), [2, 2]);
        assert_eq!(seats_of(&[1, 5], 5), [1, 4]);
        assert_eq!(seats_of(&[9], 5), [5]);
        assert_eq!(seats_of(&[2, 2, 9], 5), [2, 2, 2]);
    }
}
