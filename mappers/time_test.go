package mappers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"partnersync/mappers"
)

func TestParseTimeNumbers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		give any
		unit string
		want string
	}{
		{int64(1654807275), "s", "2022-06-09T20:41:15Z"},
		{int64(1654807275), "", "2022-06-09T20:41:15Z"},
		{int64(1654807275), "ms", "2022-06-09T20:41:15Z"},
		{int64(1583038800000), "s", "2020-03-01T05:00:00Z"},
		{int64(1583038800000), "", "2020-03-01T05:00:00Z"},
		{int64(1583038800000), "ms", "2020-03-01T05:00:00Z"},
		{int64(473385600), "s", "1985-01-01T00:00:00Z"},
		{int64(473385600), "ms", "1985-01-01T00:00:00Z"},
		{int64(473385600000), "ms", "1985-01-01T00:00:00Z"},
		{int64(473385600000), "s", "1985-01-01T00:00:00Z"},
		{int64(-1_000_000_000), "s", "1938-04-24T22:13:20Z"},
		{int64(-1_000_000_000_000), "ms", "1938-04-24T22:13:20Z"},
		{int64(4070908800), "s", "2099-01-01T00:00:00Z"},
		{int64(253402300799000), "ms", "9999-12-31T23:59:59Z"},
		{int64(0), "ms", "1970-01-01T00:00:00Z"},
		{int64(0), "s", "1970-01-01T00:00:00Z"},
		{int64(5), "ms", ""},
		{int64(-1000), "ms", ""},
		{int64(86400), "s", ""},
		{int64(20240620), "s", ""},
		{"20240620", "s", ""},
		{"20240620212002", "ms", ""},
		{int64(1583038800000000), "s", ""},
		{int64(1583038800000000000), "ms", ""},
		{int64(-1 << 63), "s", ""},
		{dec("1583038800000.5"), "ms", "2020-03-01T05:00:00.0005Z"},
		{dec("1583038800.5"), "ms", "2020-03-01T05:00:00.5Z"},
		{dec("1583038800000.5"), "s", "2020-03-01T05:00:00.0005Z"},
		{dec("-1000000000.25"), "s", "1938-04-24T22:13:19.75Z"},
		{dec("0.5"), "s", ""},
		{"1654807275.5", "s", "2022-06-09T20:41:15.5Z"},
		{"1654807275", "ms", "2022-06-09T20:41:15Z"},
		{"1583038800000", "s", "2020-03-01T05:00:00Z"},
		{"1.583038800e9", "", "2020-03-01T05:00:00Z"},
		{utc("2020-03-01T05:00:00Z"), "", "2020-03-01T05:00:00Z"},
		{time.Time{}, "", ""},
		{dec("1e300"), "s", ""},
		{dec("1e-300"), "s", ""},
		{true, "s", ""},
		{nil, "s", ""},
	}
	for _, tt := range tests {
		if got := parsed(tt.give, tt.unit); got != tt.want {
			t.Errorf("ParseTime(%v, %q) = %q, want %q", tt.give, tt.unit, got, tt.want)
		}
	}
}

func parsed(v any, unit string) string {
	at, ok := mappers.ParseTime(v, unit)
	if !ok {
		return ""
	}
	return at.Format(time.RFC3339Nano)
}

func TestParseTimeSpellings(t *testing.T) {
	t.Parallel()
	at, whole := "2024-06-20T21:20:02Z", "2024-06-20T21:20:00Z"
	tests := map[string]string{
		"2024-06-20T21:20:02Z":                    at,
		"2024-06-20t21:20:02z":                    at,
		" 2024-06-20T21:20:02Z\n":                 at,
		"2024-06-20T21:20:02+00:00":               at,
		"2024-06-20T21:20:02+0000":                at,
		"2024-06-20T21:20:02+00":                  at,
		"2024-06-20T16:20:02-0500":                at,
		"2024-06-20T16:20:02-05":                  at,
		"2024-06-21T02:50:02+0530":                at,
		"2024-06-20 16:20:02 -0500":               at,
		"2024-06-20 16:20:02 -05:00":              at,
		"2024-06-20 21:20:02 +0000 UTC":           at,
		"2024-06-20 23:20:02 +0200 CEST":          at,
		"2024-06-20T23:20:02+02:00[Europe/Paris]": at,
		"2024-06-20T21:20:02Z[UTC]":               at,
		"2024-06-20 21:20:02 UTC":                 at,
		"2024-06-20 21:20:02 GMT":                 at,
		"2024-06-20 21:20:02 utc":                 at,
		"2024-06-20 21:20:02UTC":                  at,
		"2024-06-20 21:20:02 Z":                   at,
		"2024-06-20 21:20:02Z":                    at,
		"2024-06-20 21:20:02":                     at,
		"2024-06-20T21:20:02":                     at,
		"2024/06/20 21:20:02":                     at,
		"20240620T212002Z":                        at,
		"20240620T162002-0500":                    at,
		"2024-06-20T21:20:02.000+0000":            at,
		"2024-06-20T21:20:02,000+0000":            at,
		"2024-06-20T21:20:02.0":                   at,
		"2024-06-20T21:20Z":                       whole,
		"2024-06-20T21:20+0000":                   whole,
		"2024-06-20T16:20-05:00":                  whole,
		"2024-06-20 21:20":                        whole,
		"2024-06-20 21:20 UTC":                    whole,
		"Thu, 20 Jun 2024 21:20:02 GMT":           at,
		"Thu, 20 Jun 2024 21:20:02 UT":            at,
		"Thu, 20 Jun 2024 16:20:02 -0500":         at,
		"Thu, 20 Jun 2024 16:20:02 -0500 (CDT)":   at,
		"thu, 20 jun 2024 21:20:02 +0000":         at,
		"20 Jun 2024 21:20:02 +0000":              at,
		"20 Jun 24 21:20:02 GMT":                  at,
		"20 Jun 24 21:20 GMT":                     whole,
		"20 Jun 24 16:20 -0500":                   whole,
		"Thursday, 20-Jun-24 21:20:02 GMT":        at,
		"Thu, 20-Jun-2024 21:20:02 GMT":           at,
		"Thu Jun 20 21:20:02 2024":                at,
		"Thu Jun 20 21:20:02 UTC 2024":            at,
		"Thu Jun 20 16:20:02 -0500 2024":          at,
		"Thu Jun 20 2024 21:20:02 GMT+0000 (UTC)": at,
		"Thu Jun 20 2024 23:20:02 GMT+0200 (Mitteleuropäische Sommerzeit)": at,

		"2024-06-20T21:20:02.5Z":            "2024-06-20T21:20:02.5Z",
		"2024-06-20T21:20:02,25+0000":       "2024-06-20T21:20:02.25Z",
		"2024-06-20 21:20:02.123456789 UTC": "2024-06-20T21:20:02.123456789Z",
		"2024-06-20T21:20:02.123456-0000":   "2024-06-20T21:20:02.123456Z",
		"20240620T212002.75Z":               "2024-06-20T21:20:02.75Z",
		"2024-06-20":                        "2024-06-20T00:00:00Z",
		"2024/06/20":                        "2024-06-20T00:00:00Z",

		"01/02/2024":                    "",
		"01/02/2024 10:00:00":           "",
		"01-02-2024":                    "",
		"01.02.2024":                    "",
		"2/1/24":                        "",
		"20240620":                      "",
		"2024-06-20 21:20:02 EST":       "", // which of them?
		"Thu, 20 Jun 2024 21:20:02 CST": "",
		"2024-06-20T21:20:02+9900":      "",
		"2024-06-20T21:20:02+0060":      "",
		"2024-06-20T21:20:02+0000junk":  "",
		"2024-06-31T21:20:02Z":          "",
		"2024-13-01":                    "",
		"2024-06-20T25:00:00Z":          "",
		"21:20:02":                      "",
		"UTC":                           "",
		"tomorrow":                      "",
		"":                              "",
		"9999-12-31T23:59:59-0500":      "",
	}
	for give, want := range tests {
		if got := parsed(give, "ms"); got != want {
			t.Errorf("ParseTime(%q) = %q, want %q", give, got, want)
		}
	}
	if at, _ := mappers.ParseTime("2024/06/20", ""); at.Location() != mappers.Day {
		t.Error("a date is no day")
	}
}

// Whatever the spelling, it is the same instant.
func TestParseTimeAnySpelling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		offset := rapid.IntRange(-14*4, 14*4).Draw(t, "quarters") * 15 * 60
		at := time.Unix(rapid.Int64Range(leastLikely, mostLikely).Draw(t, "at"), 0).In(time.FixedZone("", offset))
		date := rapid.SampledFrom([]string{"2006-01-02T", "2006-01-02t", "2006-01-02 ", "2006/01/02 ", "Mon, 02 Jan 2006 ", "2 Jan 2006 ", "Monday, 02-Jan-06 ", "Mon Jan 2 2006 "}).Draw(t, "date")
		if strings.HasSuffix(date, "06 ") && !strings.HasSuffix(date, "2006 ") && (at.Year() < 1970 || at.Year() > 2067) {
			t.Skip("two digits of a year")
		}
		fraction := rapid.SampledFrom([]string{"", ".", ","}).Draw(t, "fraction")
		if fraction != "" {
			digits := rapid.StringMatching(`[0-9]{1,9}`).Draw(t, "digits")
			fraction += digits
			nanos := digits + strings.Repeat("0", 9-len(digits))
			var n int
			fmt.Sscanf(nanos, "%d", &n)
			at = at.Add(time.Duration(n))
		}
		blank := rapid.SampledFrom([]string{"", " "}).Draw(t, "blank")
		zones := []string{"-0700", "-07:00"}
		if offset%3600 == 0 {
			zones = append(zones, "-07")
		}
		zone := at.Format(rapid.SampledFrom(zones).Draw(t, "zone"))
		if offset == 0 {
			zone = rapid.SampledFrom([]string{zone, "Z", "UTC", "GMT", "", "z"}).Draw(t, "name")
		}
		text := at.Format(date+"15:04:05") + fraction + blank + zone
		got, ok := mappers.ParseTime(text, rapid.SampledFrom([]string{"", "s", "ms"}).Draw(t, "unit"))
		if !ok || !got.Equal(at) {
			t.Fatalf("%q is read as %s, want %s", text, got, at.UTC())
		}
	})
}

// From 1970 to 2200 seconds and milliseconds are told apart, whatever the unit.
func TestParseTimeTellsUnitsApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64Range(leastLikely, mostLikely).Draw(t, "at")
		for _, unit := range []string{"", "s", "ms"} {
			for _, v := range []any{at, at * 1000, fmt.Sprint(at), fmt.Sprint(at * 1000)} {
				if got, ok := mappers.ParseTime(v, unit); !ok || got.Unix() != at {
					t.Fatalf("ParseTime(%v, %q) = %s, want %s", v, unit, got, time.Unix(at, 0).UTC())
				}
			}
		}
	})
}

const (
	leastLikely = 631_152_000   // 1990
	mostLikely  = 7_258_118_399 // 2199
)
