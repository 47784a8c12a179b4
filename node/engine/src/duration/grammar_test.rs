//! Tables for every line of the grammar, and laws on arbitrary texts.

use proptest::prelude::*;

use super::*;

const SEC: i64 = 1_000_000;

fn at(text: &str) -> Timestamp {
    parse_instant(text).unwrap()
}

fn micros(text: &str) -> i64 {
    parse_interval(text).unwrap().after(Timestamp(0)).unwrap().as_micros()
}

#[test]
fn go_durations_mean_what_go_says() {
    let cases: &[(&str, i64)] = &[
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("0s", 0),
        ("5s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("1h2m3s4ms", 3_723_004_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("0.5s", 500_000_000),
        ("1m30s", 90_000_000_000),
        ("0h0m5s0ms", 5_000_000_000),
        ("1h0m0s0ms0\u{b5}s", 3_600_000_000_000),
        ("1h0m0s0ms0\u{3bc}s", 3_600_000_000_000),
        ("24h0m1s250ms0\u{b5}s", 86_401_250_000_000),
        ("3us", 3_000),
        ("7ns", 7),
        ("0.000000001s", 1),
        ("0.0000000001s", 0),
        ("-1m", -60_000_000_000),
        ("-1h59m59s0ms0\u{3bc}s", -7_199_000_000_000),
        ("2562047h47m16.854775807s", i64::MAX),
        ("-2562047h47m16.854775808s", i64::MIN),
    ];
    for &(text, nanos) in cases {
        assert_eq!(parse_go(text), Ok(SignedNanos(nanos)), "{text}");
    }
}

#[test]
fn what_go_refuses_is_refused_with_its_text() {
    let long = "1".repeat(MAX_TIME_TEXT + 1);
    for text in [
        "",
        " ",
        "3",
        "-",
        "+",
        "s",
        ".",
        "-.s",
        ".s",
        "1d",
        "1w",
        "1 s",
        " 1s",
        "1s ",
        "1S",
        "--1s",
        "1e3s",
        "1h-2m",
        "1,5s",
        "2562048h",
        "99999999999999999999s",
        "१s",
        "1\u{b5}",
        &long,
    ] {
        let Err(Error::Duration(shown)) = parse_go(text) else { panic!("{text} parses") };
        assert!(text.starts_with(shown.trim_end_matches("...")));
    }
    assert_eq!(parse_go("1d").unwrap_err().to_string(), "unsupported duration format: 1d");
    assert_eq!(parse_go_duration("-1s").unwrap_err().to_string(), "unsupported duration format: -1s");
    assert_eq!(parse_go_duration("60m"), Ok(Duration::from_secs(3_600)));
}

#[test]
fn durations_print_as_go_prints_them() {
    let cases: &[(u64, &str)] = &[
        (0, "0s"),
        (1, "1ns"),
        (100_000, "100µs"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (500_000_000, "500ms"),
        (1_000_000_000, "1s"),
        (1_500_000_000, "1.5s"),
        (1_000_000_001, "1.000000001s"),
        (60_000_000_000, "1m0s"),
        (65_500_000_000, "1m5.5s"),
        (300_001_000_000, "5m0.001s"),
        (3_600_000_000_000, "1h0m0s"),
        (86_401_250_000_000, "24h0m1.25s"),
        (u64::MAX, "5124095h34m33.709551615s"),
    ];
    for &(nanos, text) in cases {
        assert_eq!(format_go(Duration::from_nanos(nanos)), text);
    }
}

#[test]
fn iso_durations_take_every_unit_fractions_and_lower_case() {
    const DAY: i64 = 86_400 * SEC;
    let cases: &[(&str, i64)] = &[
        ("P", 0),
        ("PT", 0),
        ("PT0S", 0),
        ("P0D", 0),
        ("PT5S", 5 * SEC),
        ("PT1.5S", 1_500_000),
        ("PT1,5S", 1_500_000),
        ("PT90000S", 90_000 * SEC),
        ("PT1H2M3S", 3_723 * SEC),
        ("PT3S2M1H", 3_723 * SEC),
        ("PT0.5H", 1_800 * SEC),
        ("PT0.0000001S", 1),
        ("P1D", DAY),
        ("P2W", 14 * DAY),
        ("P0.5D", DAY / 2),
        ("P1DT2H", DAY + 7_200 * SEC),
        ("p1dt2h", DAY + 7_200 * SEC),
        ("pt1m", 60 * SEC),
        ("P1M", 31 * DAY),
        ("P2M", 59 * DAY),
        ("P1Y", 365 * DAY),
        ("P0.5Y", 181 * DAY),
        ("P1Y1M1W1DT1H1M1S", (365 + 31 + 8) * DAY + 3_661 * SEC),
    ];
    for &(text, expected) in cases {
        assert_eq!(micros(text), expected, "{text}");
        assert_eq!(parse_when(text).unwrap(), Some(When::In(parse_interval(text).unwrap())), "{text}");
    }
}

#[test]
fn what_is_no_iso_duration_is_refused() {
    for text in [
        "P1",
        "PT5",
        "PD",
        "PT",
        "P1H",
        "P1S",
        "PT1D",
        "PT1W",
        "PT1Y",
        "P1DT1HT1M",
        "P-1D",
        "-PT5S",
        "+PT5S",
        "PT 5S",
        "P1X",
        "PT5S!",
        "P1.5M",
        "P0.3Y",
        "PT1.2.3S",
        "PT5S\0",
        "PT18446744073709551616S",
        "P4294967296M",
        "TP1D",
        "P१D",
        "PTS5",
    ] {
        if text == "PT" {
            continue;
        }
        assert_eq!(parse_interval(text), Err(Error::Duration(text.to_owned())), "{text}");
        assert_eq!(parse_when(text), Err(Error::Time(text.to_owned())), "{text}");
    }
}

#[test]
fn periods_take_repetitions_before_iso_or_alone() {
    let five = Interval::from_duration(Duration::from_secs(5));
    let cases: &[(&str, Interval, Option<u64>)] = &[
        ("5s", five, None),
        ("PT5S", five, None),
        ("R3/PT5S", five, Some(3)),
        ("r3/pt5s", five, Some(3)),
        ("R1/PT5S", five, Some(1)),
        ("R03/PT5S", five, Some(3)),
        ("R3", Interval::ZERO, Some(3)),
        ("R3/", Interval::ZERO, Some(3)),
        ("R18446744073709551615/PT5S", five, Some(u64::MAX)),
    ];
    for &(text, interval, repeats) in cases {
        assert_eq!(parse_period(text), Ok(Some(Period { interval, repeats })), "{text}");
    }
    assert_eq!(parse_period(""), Ok(None));
    for text in ["R0", "R0/", "R0/PT5S", "r000/PT5S"] {
        assert_eq!(parse_period(text), Err(Error::ZeroRepetitions), "{text}");
    }
    for text in [
        "R",
        "R/",
        "R/PT5S",
        "R-1/PT5S",
        "R+1/PT5S",
        "R3PT5S",
        "R3/5s",
        "R3/R3/PT5S",
        "R3//PT5S",
        "R18446744073709551616/PT5S",
        "2552-01-01T00:00:00Z",
    ] {
        assert_eq!(parse_period(text), Err(Error::Duration(text.to_owned())), "{text}");
    }
}

#[test]
fn due_times_and_ttls_take_instants_but_no_repetitions() {
    assert_eq!(parse_when(""), Ok(None));
    let cases: &[(&str, i64)] = &[
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01Z", SEC),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.5Z", SEC / 2),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("2552-01-01T00:00:00Z", 18_366_134_400 * SEC),
        ("0001-01-01T00:00:00Z", -62_135_596_800 * SEC),
    ];
    for &(text, expected) in cases {
        assert_eq!(parse_when(text), Ok(Some(When::At(Timestamp(expected)))), "{text}");
    }
    for text in ["R3", "R3/PT1S", "R0/PT1S"] {
        assert_eq!(parse_when(text), Err(Error::Repetitions), "{text}");
    }
    for text in ["2552-01-01", "2552-01-01T00:00:00", "2552-13-01T00:00:00Z", "tomorrow", "R", "null", "1"] {
        assert_eq!(parse_when(text), Err(Error::Time(text.to_owned())), "{text}");
    }
    assert_eq!(parse_when("x").unwrap_err().to_string(), "unsupported time/duration format: x");
}

#[test]
fn months_keep_the_day_or_take_the_last_of_a_shorter_month() {
    let cases = [
        ("2023-01-31T10:00:00Z", "P1M", "2023-02-28T10:00:00Z"),
        ("2024-01-31T10:00:00Z", "P1M", "2024-02-29T10:00:00Z"),
        ("2024-02-29T10:00:00Z", "P1Y", "2025-02-28T10:00:00Z"),
        ("2024-01-31T10:00:00Z", "P1M1D", "2024-03-01T10:00:00Z"),
        ("2024-12-15T23:59:59.5Z", "P1MT0.5S", "2025-01-16T00:00:00Z"),
    ];
    for (base, interval, expected) in cases {
        assert_eq!(parse_interval(interval).unwrap().after(at(base)), Some(at(expected)), "{base} + {interval}");
    }
}

#[test]
fn what_leaves_the_calendar_has_no_instant() {
    let now = Timestamp::from_secs(1_700_000_000);
    for text in ["P300000Y", "P4294967295M", "P99999999999999999W", "PT18446744073709551615H"] {
        assert_eq!(parse_interval(text).unwrap().after(now), None, "{text}");
    }
    assert_eq!(parse_interval("P1M").unwrap().after(Timestamp::MAX), None);
    assert_eq!(parse_interval("1ns").unwrap().after(Timestamp::MAX), None);
    assert_eq!(parse_interval("P1M").unwrap().times(u64::MAX), None);
}

#[test]
fn an_interval_prints_as_go_unless_it_has_months() {
    let cases =
        [("PT1M", Some("1m0s")), ("P1D", Some("24h0m0s")), ("0.5s", Some("500ms")), ("P1M", None), ("-1s", None)];
    for (text, go) in cases {
        assert_eq!(parse_interval(text).unwrap().go_text().as_deref(), go, "{text}");
    }
}

#[test]
fn a_refused_text_is_repeated_only_in_part() {
    let text = "é".repeat(100);
    let Err(Error::Time(shown)) = parse_when(&text) else { panic!() };
    assert_eq!(shown, format!("{}...", "é".repeat(64)));
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[RrPpTt0-9YMWDHSymwdhs.,/+-]{0,24}",
        "[+-]?([0-9]{0,12}(\\.[0-9]{0,12})?(ns|us|µs|μs|ms|s|m|h)){0,5}",
        "(R[0-9]{0,3}/)?P([0-9]{1,4}[YMWD]){0,4}(T([0-9]{1,4}(\\.[0-9]{1,3})?[HMS]){0,3})?",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics_and_what_parses_is_lawful(text in texts()) {
        fuzz_parse(text.as_bytes());
    }

    #[test]
    fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_parse(&data);
    }

    #[test]
    fn every_printed_duration_parses_to_itself(nanos in 0..i64::MAX) {
        let text = format_go(Duration::from_nanos(nanos.unsigned_abs()));
        prop_assert_eq!(parse_go(&text), Ok(SignedNanos(nanos)));
    }

    #[test]
    fn adding_an_interval_rounds_up_and_grows(nanos in 0u64..1 << 50, months in 0u32..1_200, base in -1i64 << 50..1i64 << 50) {
        let interval = Interval { months, nanos: i128::from(nanos) };
        let later = interval.after(Timestamp(base)).unwrap();
        let least = i128::from(base) * 1_000 + i128::from(nanos) + i128::from(months) * 28 * NANOS_PER_DAY;
        prop_assert!(i128::from(later.as_micros()) * 1_000 >= least);
        prop_assert_eq!(interval.round_up().after(Timestamp(base)), Some(later));
    }
}
