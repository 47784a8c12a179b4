//! The firings of reminders and timers, by the examples of the interface and by laws.

use proptest::prelude::*;

use super::*;

const SEC: i64 = 1_000_000;
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn reminder(due_time: &str, period: &str, ttl: &str) -> Schedule {
    Schedule::reminder(due_time, period, ttl, NOW).unwrap()
}

fn timer(due_time: &str, period: &str, ttl: &str) -> Schedule {
    Schedule::timer("T||I||N", due_time, period, ttl, NOW).unwrap()
}

/// The first `limit` due instants, in microseconds after registration.
fn dues(schedule: &Schedule, limit: usize) -> Vec<i64> {
    let mut due = Some(schedule.first_due());
    let mut found = Vec::new();
    while let Some(at) = due
        && found.len() < limit
    {
        found.push(at.as_micros() - NOW.as_micros());
        due = schedule.next(at, found.len() as u64);
    }
    found
}

fn secs(schedule: &Schedule, limit: usize) -> Vec<i64> {
    dues(schedule, limit).into_iter().map(|micros| micros / SEC).collect()
}

#[test]
fn a_reminder_first_fires_at_its_due_time_else_one_period_after_registration() {
    assert_eq!(secs(&reminder("5s", "2s", ""), 3), [5, 7, 9]);
    assert_eq!(secs(&reminder("", "2s", ""), 3), [2, 4, 6]);
    assert_eq!(secs(&reminder("0s", "PT1M", ""), 2), [0, 60]);
    assert_eq!(secs(&reminder("2023-11-14T22:13:30Z", "PT1M", ""), 2), [10, 70]);
}

#[test]
fn a_timer_without_due_time_ticks_at_once() {
    assert_eq!(secs(&timer("", "2s", ""), 3), [0, 2, 4]);
    assert_eq!(secs(&timer("5s", "2s", ""), 3), [5, 7, 9]);
    assert_eq!(secs(&timer("", "", ""), 3), [0]);
    assert_eq!(secs(&timer("P1D", "P1W", ""), 2), [86_400, 8 * 86_400]);
}

#[test]
fn without_a_period_there_is_one_firing() {
    for period in ["", "0s", "PT0S", "P", "-1s", "-1h59m59s0ms0\u{3bc}s"] {
        assert_eq!(secs(&reminder("1s", period, ""), 9), [1], "{period}");
        assert_eq!(secs(&timer("1s", period, ""), 9), [1], "{period}");
    }
    assert_eq!(reminder("1s", "", "").repeats(), Some(1));
    assert_eq!(secs(&reminder("", "-1s", ""), 9), [0]);
}

#[test]
fn repetitions_count_all_firings() {
    assert_eq!(secs(&reminder("1s", "R5/PT1S", ""), 99), [1, 2, 3, 4, 5]);
    assert_eq!(secs(&reminder("", "R2/PT3S", ""), 99), [3, 6]);
    assert_eq!(secs(&timer("", "R3/PT1S", ""), 99), [0, 1, 2]);
    assert_eq!(secs(&timer("", "R1/PT1S", ""), 99), [0]);
    assert_eq!(reminder("", "R2/PT3S", "").repeats(), Some(2));
    assert_eq!(reminder("", "PT3S", "").repeats(), None);
}

#[test]
fn bare_repetitions_are_back_to_back_for_reminders_and_one_tick_for_timers() {
    assert_eq!(secs(&reminder("2s", "R3", ""), 99), [2, 2, 2]);
    assert_eq!(secs(&reminder("", "R3/", ""), 99), [0, 0, 0]);
    assert_eq!(secs(&reminder("", "R3/PT0S", ""), 99), [0, 0, 0]);
    assert_eq!(secs(&timer("2s", "R3", ""), 99), [2]);
    assert_eq!(secs(&timer("2s", "R3/", ""), 99), [2]);
}

#[test]
fn the_ttl_of_a_reminder_is_inclusive() {
    assert_eq!(dues(&reminder("", "PT1S", "3s"), 99).len(), 3);
    assert_eq!(dues(&reminder("", "1s", "5s"), 99).len(), 5);
    assert_eq!(dues(&reminder("", "1ms", "10ms"), 99).len(), 10);
    assert_eq!(secs(&reminder("", "1s", "2023-11-14T22:13:22Z"), 99), [1, 2]);
    assert_eq!(secs(&reminder("2s", "1s", "0s"), 99), [2]);
}

#[test]
fn the_ttl_of_a_timer_is_exclusive() {
    assert_eq!(secs(&timer("", "1s", "3s"), 99), [0, 1, 2]);
    assert_eq!(secs(&timer("1s", "1s", "2023-11-14T22:13:23Z"), 99), [1, 2]);
    assert_eq!(secs(&timer("1s", "", "PT1S"), 99), [1]);
}

#[test]
fn a_ttl_duration_counts_from_the_due_time() {
    assert_eq!(secs(&timer("2s", "2s", "3s"), 99), [2, 4]);
    assert_eq!(secs(&reminder("2s", "2s", "3s"), 99), [2, 4]);
}

#[test]
fn a_due_time_in_the_past_fires_at_once_and_then_follows_its_grid() {
    assert_eq!(secs(&reminder("-10s", "", ""), 9), [-10]);
    assert_eq!(secs(&reminder("-10s", "4s", ""), 4), [-10, 2, 6, 10]);
    assert_eq!(secs(&timer("-8s", "4s", ""), 3), [-8, 4, 8]);
    assert_eq!(secs(&reminder("-1s", "4s", ""), 3), [-1, 3, 7]);
    assert_eq!(secs(&reminder("-10s", "R3/PT4S", ""), 9), [-10, 2, 6]);
    let old = reminder("1970-01-01T00:00:00Z", "1s", "");
    assert_eq!(old.next(old.first_due(), 1), Some(Timestamp::from_secs(1_700_000_001)));
    let monthly = reminder("2000-01-31T00:00:00Z", "P1M", "");
    assert_eq!(monthly.next(monthly.first_due(), 1), instant_of("2023-11-30T00:00:00Z"));
}

fn instant_of(text: &str) -> Option<Timestamp> {
    parse_when(text).unwrap().unwrap().from(NOW)
}

#[test]
fn calendar_periods_return_to_their_day_after_short_months() {
    let schedule = reminder("2024-01-31T10:00:00Z", "P1M", "");
    let mut due = schedule.first_due();
    for (occurrence, expected) in [
        (1, "2024-02-29T10:00:00Z"),
        (2, "2024-03-31T10:00:00Z"),
        (3, "2024-04-30T10:00:00Z"),
        (4, "2024-05-31T10:00:00Z"),
    ] {
        due = schedule.next(due, occurrence).unwrap();
        assert_eq!(Some(due), instant_of(expected));
    }
}

#[test]
fn a_calendar_period_without_due_time_counts_from_the_registration() {
    let registered = instant_of("2024-01-31T10:00:00Z").unwrap();
    let schedule = Schedule::reminder("", "P1M", "", registered).unwrap();
    assert_eq!(Some(schedule.first_due()), instant_of("2024-02-29T10:00:00Z"));
    assert_eq!(schedule.next(schedule.first_due(), 1), instant_of("2024-03-31T10:00:00Z"));
}

#[test]
fn a_reminder_accepts_days_weeks_months_years_and_fractions() {
    assert_eq!(secs(&reminder("", "P1D", ""), 2), [86_400, 172_800]);
    assert_eq!(secs(&reminder("", "p1dt2h", ""), 1), [93_600]);
    assert_eq!(dues(&reminder("", "PT1.5S", ""), 2), [1_500_000, 3_000_000]);
    assert_eq!(secs(&reminder("", "R2/P1W", ""), 9), [604_800, 1_209_600]);
    assert_eq!(reminder("", "P1Y", "").first_due(), Timestamp::from_secs(1_700_000_000 + 366 * 86_400));
}

#[test]
fn a_period_below_a_microsecond_still_moves_forward() {
    assert_eq!(dues(&reminder("", "1ns", ""), 3), [1, 2, 3]);
    assert_eq!(dues(&timer("", "1500ns", ""), 3), [0, 2, 4]);
}

#[test]
fn refused_reminders_say_what_dapr_says() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("", "", "", "job must have either a due time or a schedule"),
        ("", "", "3s", "job must have either a due time or a schedule"),
        ("1s", "", "3s", "job must have a schedule to have a ttl"),
        ("", "1x", "", "unsupported period format: 1x"),
        ("", "R0/PT1S", "", "unsupported period format: R0/PT1S"),
        ("", "R0", "", "unsupported period format: R0"),
        ("", "P400000Y", "", "unsupported period format: P400000Y"),
        ("soon", "1s", "", "due time format not recognized"),
        ("P400000Y", "1s", "", "due time format not recognized"),
        ("R5/PT1S", "1s", "", "repeats not supported for due time"),
        ("R5", "1s", "", "repeats not supported for due time"),
        ("", "1s", "later", "ttl format not recognized"),
        ("", "1s", "R3/PT1S", "ttl format not recognized"),
        ("", "1s", "P400000Y", "ttl format not recognized"),
        ("2h", "1s", "2023-11-14T22:13:20Z", "ttl must be greater than due time"),
        ("2s", "1s", "-1s", "ttl must be greater than due time"),
        ("", "10s", "5s", "ttl must be greater than due time"),
    ];
    for &(due_time, period, ttl, text) in cases {
        let error = Schedule::reminder(due_time, period, ttl, NOW).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(error.class(), Class::Rejected);
    }
}

#[test]
fn refused_timers_say_what_dapr_says() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("soon", "", "", "error parsing timer due time: unsupported time/duration format: soon"),
        ("R5/PT1S", "", "", "error parsing timer due time: repetitions are not allowed"),
        ("", "1x", "", "invalid timer period: parse error: unsupported duration format: 1x"),
        ("", "R0/PT1S", "", "invalid timer period: has zero repetitions"),
        ("", "1s", "soon", "error parsing timer TTL: unsupported time/duration format: soon"),
        ("", "1s", "R3/PT1S", "error parsing timer TTL: repetitions are not allowed"),
        ("1s", "1s", "-2s", "timer T||I||N has already expired: dueTime: 1s TTL: -2s"),
        ("1s", "", "0s", "timer T||I||N has already expired: dueTime: 1s TTL: 0s"),
        ("-1h", "1s", "1m", "timer T||I||N has already expired: dueTime: -1h TTL: 1m"),
        ("", "1s", "2023-11-14T22:13:20Z", "timer T||I||N has already expired: dueTime:  TTL: 2023-11-14T22:13:20Z"),
    ];
    for &(due_time, period, ttl, text) in cases {
        let error = Schedule::timer("T||I||N", due_time, period, ttl, NOW).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_schedule_rebuilt_from_its_texts_continues_where_it_was() {
    for (due_time, period) in [("", "R9/PT3S"), ("1s", "P1M"), ("-90s", "7s")] {
        let before = reminder(due_time, period, "P9Y");
        let second = before.next(before.first_due(), 1).unwrap();
        let after = reminder(due_time, period, "P9Y");
        assert_eq!(after.next(second, 2), before.next(second, 2));
        assert_eq!(after.expires_at(), before.expires_at());
    }
}

#[test]
fn a_due_instant_beyond_the_grid_still_moves_forward() {
    let schedule = reminder("", "2s", "");
    let far = Timestamp::from_secs(1_700_000_100);
    assert_eq!(schedule.next(far, 1), Some(Timestamp::from_secs(1_700_000_102)));
    assert_eq!(schedule.next(Timestamp::MAX, 1), None);
    assert_eq!(schedule.next(NOW, u64::MAX), Some(Timestamp::from_secs(1_700_000_002)));
}

fn intervals() -> impl Strategy<Value = String> {
    prop_oneof![
        "[1-9][0-9]{0,3}(ns|us|ms|s|m|h)",
        "P[0-9]{1,2}M([0-9]{1,2}D)?",
        "PT[0-9]{1,3}(\\.[0-9]{1,7})?S",
        "P[0-9]W"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_texts_break_the_invariants(
        due in prop_oneof![Just(String::new()), intervals(), "-[0-9]{1,4}s", any::<String>()],
        repeats in prop_oneof![Just(String::new()), "R[0-9]{1,2}/"],
        period in prop_oneof![intervals(), any::<String>()],
        ttl in prop_oneof![Just(String::new()), intervals(), any::<String>()],
    ) {
        fuzz_schedule(format!("{due}\n{repeats}{period}\n{ttl}").as_bytes());
    }

    #[test]
    fn the_repeat_count_is_exact(total in 1u64..40, span in 1u64..5_000, due in prop_oneof![Just(None), (-9_000i64..9_000).prop_map(Some)]) {
        let due_time = due.map(|ms| format!("{ms}ms")).unwrap_or_default();
        let period = format!("R{total}/PT{}.{:03}S", span / 1_000, span % 1_000);
        for schedule in [reminder(&due_time, &period, ""), timer(&due_time, &period, "")] {
            let found = dues(&schedule, 100);
            prop_assert_eq!(found.len() as u64, total);
            let step = i64::try_from(span).unwrap() * 1_000;
            prop_assert!(found.windows(2).skip(1).all(|pair| pair[1] - pair[0] == step), "no drift: {:?}", found);
            prop_assert!(found.iter().skip(1).all(|&at| at > 0), "nothing before registration is missed");
        }
    }

    #[test]
    fn the_ttl_boundary_is_inclusive_for_reminders_and_exclusive_for_timers(period in 1i64..500, periods in 1i64..50) {
        let ttl = format!("{}ms", period * periods);
        let period = format!("{period}ms");
        prop_assert_eq!(dues(&reminder("", &period, &ttl), 100).len() as i64, periods);
        prop_assert_eq!(dues(&reminder("1s", &period, &ttl), 100).len() as i64, periods + 1);
        prop_assert_eq!(dues(&timer("1s", &period, &ttl), 100).len() as i64, periods);
    }
}
