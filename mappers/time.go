package mappers

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// Day is the location of a time that a body gave as a bare date, "2006-01-02":
// midnight UTC for comparisons, but the same day in every zone.
var Day = time.FixedZone("day", 0)

// ParseTime reads a time as bodies write it: a number or its digits in unit
// ("ms" or "s", the default), or a text in one of the usual spellings.
//
// A number that gives no time in its unit is read in the other one, and is no time
// if that gives none either. In seconds it is one up to 1e11, in milliseconds up to
// the year 9999; within a hundred days of 1970 only 0 is one. So the seconds of a
// sender that else writes milliseconds are told from these, and the other way round.
//
// A text is a time in RFC 3339 or near it: a blank or t for the T, a comma before the
// fraction, no seconds, slashes in the date, an offset without colon or minutes, the
// words UTC and GMT for Z, no offset for UTC; the basic form 20060102T150405Z; a date,
// in Day; the dates of mails, of HTTP, of asctime and of JavaScript. Years outside 0 to
// 9999 do not count. What could mean several times is none: 01/02/2024, the names of
// zones, digits that are a calendar's as well as a clock's (20240620).
func ParseTime(v any, unit string) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v, !v.IsZero()
	case int64:
		return timeOfEpoch(v, unit)
	case decimal.Decimal:
		return timeOfDecimal(v, unit)
	case string:
		return timeOfText(v, unit)
	}
	return time.Time{}, false
}

// Bounds of numbers that are times, whatever their sign.
const (
	leastSeconds = 100 * 24 * 60 * 60
	mostSeconds  = 100_000_000_000 // the year 5138
	mostMillis   = 253_402_300_800_000
)

func timeOfEpoch(v int64, unit string) (time.Time, bool) {
	if unit == "ms" && isMillis(v) || unit != "ms" && !isSeconds(v) && isMillis(v) {
		return saneTime(time.UnixMilli(v).UTC())
	}
	if isSeconds(v) {
		return saneTime(time.Unix(v, 0).UTC())
	}
	return time.Time{}, false
}

func isSeconds(v int64) bool {
	return v == 0 || between(v, leastSeconds, mostSeconds) && !isCalendar(v, "20060102")
}

func isMillis(v int64) bool {
	return v == 0 || between(v, leastSeconds*1000, mostMillis) && !isCalendar(v, "20060102150405")
}

func between(v, least, most int64) bool { return v >= least && v <= most || v <= -least && v >= -most }

// isCalendar reports whether the digits of a number are those of a date of our time.
func isCalendar(v int64, layout string) bool {
	t, err := time.Parse(layout, strconv.FormatInt(v, 10))
	return err == nil && t.Year() >= 1900 && t.Year() < 2200
}

// timeOfDecimal is timeOfEpoch with a fraction.
func timeOfDecimal(d decimal.Decimal, unit string) (time.Time, bool) {
	if tooLong(d) {
		return time.Time{}, false
	}
	whole := d.BigInt()
	if !whole.IsInt64() {
		return time.Time{}, false
	}
	v := whole.Int64()
	t, ok := timeOfEpoch(v, unit)
	if !ok || v == 0 && !d.IsZero() {
		return time.Time{}, false
	}
	nanos := d.Sub(decimal.NewFromInt(v)).Shift(9)
	if t.UnixMilli() == v {
		nanos = nanos.Shift(-3)
	}
	return saneTime(t.Add(time.Duration(nanos.IntPart())))
}

var (
	// theDay is the day of the week in front of a date.
	theDay = regexp.MustCompile(`^(?:MON|TUE|WED|THU|FRI|SAT|SUN)[A-Z]*,? +`)

	// theOffset is what follows the time of the day: a word for UTC, or an offset, and
	// the zone's name behind it, which the offset has told already.
	theOffset = regexp.MustCompile(`^(.*(?::\d\d|T\d{6})(?:[.,]\d+)?) *(?:Z|UTC?|GMT|(?:UTC|GMT)?([+-]\d\d)(?::?(\d\d))?(?: \(.*\)| [A-Z]+|\[.*\])?)(?:\[UTC\])?$`)

	// layouts are those of a text without weekday and offset, in upper case.
	layouts = []string{
		"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04",
		"2006/01/02 15:04:05", "2006/01/02 15:04", "20060102T150405",
		"2 Jan 2006 15:04:05", "2 Jan 2006 15:04", "2 Jan 06 15:04:05", "2 Jan 06 15:04", // RFC 822, 1123, 5322
		"2-Jan-06 15:04:05", "2-Jan-2006 15:04:05", // RFC 850
		"Jan 2 2006 15:04:05",                                                                                       // JavaScript
		"Jan _2 15:04:05 2006", "Jan _2 15:04:05 UTC 2006", "Jan _2 15:04:05 GMT 2006", time.RubyDate[len("Mon "):], // asctime and its kin
	}

	dayLayouts = []string{time.DateOnly, "2006/01/02"}
)

const longestTime = 100 // bytes of a text that can be a time

func timeOfText(text, unit string) (time.Time, bool) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > longestTime {
		return time.Time{}, false
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return saneTime(t.UTC())
	}
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return timeOfEpoch(v, unit)
	}
	if isJSONNumber(text) {
		v, _ := numberOf([]byte(text))
		d, isDecimal := v.(decimal.Decimal)
		if !isDecimal {
			return time.Time{}, false
		}
		return timeOfDecimal(d, unit)
	}
	for _, layout := range dayLayouts {
		if t, err := time.ParseInLocation(layout, text, Day); err == nil {
			return saneTime(t)
		}
	}
	text = theDay.ReplaceAllString(strings.ToUpper(text), "")
	var offset time.Duration
	if m := theOffset.FindStringSubmatch(text); m != nil {
		var ok bool
		if text = m[1]; m[2] != "" {
			if offset, ok = offsetOf(m[2], m[3]); !ok {
				return time.Time{}, false
			}
		}
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return saneTime(t.Add(-offset).UTC())
		}
	}
	return time.Time{}, false
}

// offsetOf reads the hours with their sign, and the minutes, of an offset.
func offsetOf(hours, minutes string) (time.Duration, bool) {
	h, _ := strconv.Atoi(hours[1:])
	m, _ := strconv.Atoi(minutes) // "" is none
	offset := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	if hours[0] == '-' {
		offset = -offset
	}
	return offset, h < 24 && m < 60
}

func saneTime(t time.Time) (time.Time, bool) {
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}
