package sinks

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"partnersync/internal/diag"
)

// budgetRules say what the target takes in a day from all its clients together,
// in its own units, and where its answers tell what is left of that.
type budgetRules struct {
	Units   int               `yaml:"units"`   // 0: what the target reports
	Costs   map[Operation]int `yaml:"costs"`   // of a request, by operation; 1 where it is not set
	Keep    string            `yaml:"keep"`    // what is left for others: units, or a share such as 5%
	Rolling bool              `yaml:"rolling"` // the last twenty-four hours count, not a day
	Zone    diag.Node         `yaml:"zone"`    // where the day ends at midnight; UTC
	Wait    time.Duration     `yaml:"wait"`    // the longest before a request tries again; an hour
	Left    extract           `yaml:"left"`
	Used    extract           `yaml:"used"`
	Of      extract           `yaml:"of"` // the units, as the target reports them

	zone  *template
	keep  int
	share float64
}

// DecodeNode reads the rules and refuses what cannot be.
func (b *budgetRules) DecodeNode(n diag.Node, d *diag.Decoding) {
	type plain budgetRules
	before := len(d.Problems)
	d.Decode(n, (*plain)(b))
	known := len(d.Problems) == before
	for _, e := range n.Get("costs").Entries() {
		if op := Operation(e.Key.Text()); !slices.Contains(operations, op) && op != List {
			d.Errorf(e.Key, diag.OneOf(string(op), texts(operations)), "unknown operation %q", op)
		} else if b.Costs[op] < 0 {
			d.Errorf(e.Value, "", "a request cannot cost %d", b.Costs[op])
		}
	}
	if b.Units < 0 {
		d.Errorf(n.Get("units"), "", "a budget cannot be %d", b.Units)
	}
	if known && b.Units == 0 && b.Left == nil && (b.Used == nil || b.Of == nil) {
		d.Errorf(n, "add units, or left, or used and of", "a budget needs to know what there is")
	}
	if keep := n.Get("keep"); keep.Exists() {
		number, isShare := strings.CutSuffix(b.Keep, "%")
		v, err := strconv.ParseFloat(number, 64)
		switch {
		case err != nil || v < 0 || isShare && v >= 100:
			d.Errorf(keep, "write a number of units, or a share such as 5%", "%q is no part of a budget", b.Keep)
		case isShare:
			b.share = v / 100
		default:
			b.keep = int(v)
		}
	}
	if b.Zone.Exists() {
		b.zone = compileTemplate(b.Zone, settingsScope(), d)
	}
}

func (b *budgetRules) outline(o *outline) {
	if b == nil {
		return
	}
	for _, e := range []extract{b.Left, b.Used, b.Of} {
		e.outline(o)
	}
}

// hoursOfADay are the buckets of a rolling budget.
const hoursOfADay = 24

// budget counts what is spent of a day. What the target reports counts more than
// what it counted itself: others spend too. All methods may be called on nil.
type budget struct {
	rules  *budgetRules
	desc   *Description
	others float64 // the share of the units that stays for others, beside what is kept

	mu    sync.Mutex
	units int // 0: not known yet
	spent [hoursOfADay]int
	hour  int64     // of the latest bucket, since 1970; without rolling, all is in the first
	ends  time.Time // of the day, without rolling
	until time.Time // once nothing is left: until when nothing is sent
}

func newBudget(desc *Description) *budget {
	if desc.budget == nil {
		return nil
	}
	return &budget{rules: desc.budget, desc: desc, units: desc.budget.Units}
}

// exhausted returns how long to wait where nothing is left for the request, else
// 0. After that time one request may try: the target knows best.
func (b *budget) exhausted(op Operation, now time.Time) time.Duration {
	if b == nil || op == WhoAmI {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	switch {
	case b.units == 0 || b.left() >= b.cost(op):
		b.until = time.Time{}
		return 0
	case b.until.IsZero():
		b.until = now.Add(b.wait(now))
	case !now.Before(b.until):
		b.until = time.Time{}
		return 0
	}
	return b.until.Sub(now)
}

func (b *budget) spend(op Operation, now time.Time)  { b.add(op, now, 1) }
func (b *budget) refund(op Operation, now time.Time) { b.add(op, now, -1) }

func (b *budget) add(op Operation, now time.Time, times int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	b.spent[b.bucket()] += times * b.cost(op)
}

// correct takes over what an answer reports.
func (b *budget) correct(a *answer, now time.Time) {
	if b == nil {
		return
	}
	read := func(e extract) (int, bool) {
		n, err := strconv.Atoi(strings.TrimSpace(e.one(a, a.tree, "")))
		return max(n, 0), err == nil && n <= math.MaxInt32
	}
	left, known := read(b.rules.Left)
	of, total := read(b.rules.Of)
	if used, ok := read(b.rules.Used); ok && total && !known {
		left, known = max(of-used, 0), true
	}
	if !known {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	switch {
	case total && of > 0:
		b.units = of
	case b.rules.Units == 0 || left > b.units:
		b.units = max(b.units, left, 1)
	}
	b.spent[b.bucket()] += b.units - b.sum() - left
}

// turn drops what was spent before the day that counts.
func (b *budget) turn(now time.Time) {
	if !b.rules.Rolling {
		if !now.Before(b.ends) {
			b.spent = [hoursOfADay]int{}
			b.ends = now.Add(b.untilMidnight(now))
		}
		return
	}
	hour := now.Unix() / 3600
	for h := max(b.hour+1, hour-hoursOfADay+1); h <= hour; h++ {
		b.spent[h%hoursOfADay] = 0
	}
	b.hour = max(b.hour, hour)
}

func (b *budget) bucket() int64 {
	if b.rules.Rolling {
		return b.hour % hoursOfADay
	}
	return 0
}

func (b *budget) sum() int {
	n := 0
	for _, v := range b.spent {
		n += v
	}
	return n
}

// left is what may still be spent.
func (b *budget) left() int {
	return b.units - b.sum() - b.rules.keep - int((b.rules.share+b.others)*float64(b.units))
}

func (b *budget) cost(op Operation) int {
	if cost, ok := b.rules.Costs[op]; ok {
		return cost
	}
	return 1
}

func (b *budget) wait(now time.Time) time.Duration {
	most := cmp.Or(b.rules.Wait, time.Hour)
	if b.rules.Rolling {
		return most
	}
	return min(b.ends.Sub(now), most)
}

// untilMidnight is how long the day still is; of a zone that nobody knows, UTC.
func (b *budget) untilMidnight(now time.Time) time.Duration {
	if b.rules.zone != nil {
		if left := untilMidnight(b.rules.zone.settings(b.desc), now); left > 0 {
			return left
		}
	}
	return untilMidnight("UTC", now)
}
