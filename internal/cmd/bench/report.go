package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what one run has found. The numbers are those of its machine at its time;
// the ratios should hold elsewhere.
type Report struct {
	Environment Environment `json:"environment"`
	Short       bool        `json:"short"` // the numbers mean nothing
	Receive     *Part       `json:"receive,omitempty"`
	Work        *Part       `json:"work,omitempty"`
	Steady      *Part       `json:"steady,omitempty"`
	Together    *Part       `json:"together,omitempty"`
	Tables      []*Table    `json:"tables,omitempty"` // of the other parts
	PeakBytes   int64       `json:"peak_bytes"`       // of partnersync, 0: unknown
	Aims        []Aim       `json:"aims"`
}

// Environment is what the numbers depend on.
type Environment struct {
	Cores    int    `json:"cores"`
	Go       string `json:"go"`
	System   string `json:"system"`
	Postgres string `json:"postgres"`
	Date     string `json:"date"`
	Load     string `json:"load_average"` // before; a quiet machine has about 0
}

// Part is a table of forms.
type Part struct {
	Forms  []Form  `json:"forms"`
	Ratios []Ratio `json:"ratios,omitempty"`
}

// Form is the result of one form: medians of its windows, sums of its counts.
type Form struct {
	Name      string             `json:"name"`
	PerSecond float64            `json:"per_second"`
	Events    int                `json:"events"`
	Stored    int                `json:"stored"`
	Delivered int                `json:"delivered"`
	Requests  int                `json:"crm_requests"`
	Answer    *Spread            `json:"answer,omitempty"`   // time to answer the sender
	Delivery  *Spread            `json:"delivery,omitempty"` // from received to the CRM's answer
	Cost      map[string]float64 `json:"processor_us_per_event,omitempty"`
	PeakBytes int64              `json:"peak_bytes"`
}

// Spread are times in milliseconds.
type Spread struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// Ratio compares a form of ours with the plain one, window by window.
type Ratio struct {
	Name   string  `json:"name"`
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	// Processor is how many times the processor time of ours the plain form takes per
	// event, all processes together: what the ratio would come to if the processors did
	// nothing else. 0: unknown.
	Processor float64 `json:"processor,omitempty"`
}

// Aim is what we want to reach. Nothing fails when it is missed.
type Aim struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
	Met  bool   `json:"met"`
}

// What processor time is spent by.
const (
	costForm     = "process"
	costPostgres = "Postgres"
	costLoad     = "load"
	costCRM      = "CRM"
)

func sum(name string, windows []*window) Form {
	f := Form{Name: name}
	var rates []float64
	var answers, arrivals []Spread
	costs := map[string][]float64{}
	for _, w := range windows {
		rates = append(rates, w.perSecond)
		f.Events += w.events
		f.Stored += w.stored
		f.Delivered += w.delivered
		f.Requests += w.requests
		f.PeakBytes = max(f.PeakBytes, w.memory)
		if len(w.answers) > 0 {
			answers = append(answers, spread(w.answers))
		}
		if len(w.arrivals) > 0 {
			arrivals = append(arrivals, spread(w.arrivals))
		}
		for who, spent := range w.cost {
			costs[who] = append(costs[who], float64(spent.Microseconds())/float64(max(w.events, 1)))
		}
	}
	f.PerSecond = median(rates)
	f.Answer, f.Delivery = middle(answers), middle(arrivals)
	if len(costs) > 0 {
		f.Cost = map[string]float64{}
	}
	for who, each := range costs {
		f.Cost[who] = median(each)
	}
	return f
}

func spread(times []time.Duration) Spread {
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[min(int(part*float64(len(times))), len(times)-1)].Microseconds()) / 1000
	}
	return Spread{at(0.5), at(0.99)}
}

// middle is the median window by each of its numbers; nil when there is none.
func middle(spreads []Spread) *Spread {
	if len(spreads) == 0 {
		return nil
	}
	var p50, p99 []float64
	for _, s := range spreads {
		p50, p99 = append(p50, s.P50), append(p99, s.P99)
	}
	return &Spread{median(p50), median(p99)}
}

// ratio compares the windows that were measured one after the other.
func ratio(name string, ours, plain []*window) Ratio {
	var each, costs []float64
	for i := range ours {
		if plain[i].perSecond == 0 {
			continue // a short window on a busy machine, which compares with nothing
		}
		each = append(each, ours[i].perSecond/plain[i].perSecond)
		if mine := ours[i].costPerEvent(); mine > 0 {
			costs = append(costs, plain[i].costPerEvent()/mine)
		}
	}
	if len(each) == 0 {
		return Ratio{Name: name + " / " + formPlain}
	}
	return Ratio{name + " / " + formPlain, median(each), slices.Min(each), slices.Max(each), median(costs)}
}

// costPerEvent is the processor time of all processes, in microseconds; 0 where that of
// Postgres is unknown.
func (w *window) costPerEvent() float64 {
	if _, known := w.cost[costPostgres]; !known || w.events == 0 {
		return 0
	}
	var total time.Duration
	for _, spent := range w.cost {
		total += spent
	}
	return float64(total.Microseconds()) / float64(w.events)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// judge compares with the aims.
func (r *Report) judge() {
	for _, p := range []*Part{r.Receive, r.Work, r.Steady, r.Together} {
		if p == nil {
			continue
		}
		for _, f := range p.Forms {
			if ours(f.Name) {
				r.PeakBytes = max(r.PeakBytes, f.PeakBytes)
			}
		}
	}
	least := func(p *Part, form, name string, want float64) {
		for _, x := range p.ratios() {
			if strings.HasPrefix(x.Name, form+" /") {
				r.aim(name, fmt.Sprintf("≥ %.0f ×", want), fmt.Sprintf("%.1f ×", x.Median), x.Median >= want)
			}
		}
	}
	most := func(name string, s *Spread, value func(*Spread) float64, want float64) {
		if s != nil {
			r.aim(name, fmt.Sprintf("≤ %.0f ms", want), fmt.Sprintf("%.1f ms", value(s)), value(s) <= want)
		}
	}
	p50, p99 := func(s *Spread) float64 { return s.P50 }, func(s *Spread) float64 { return s.P99 }
	least(r.Receive, formOurs, "receiving, against plain River", 4)
	most("receiving, p99", r.Receive.form(formOurs).Answer, p99, 30)
	least(r.Work, formOurs, "working, against plain River", 2)
	least(r.Work, formOurs100, "the same with events_per_job: 100", 2)
	least(r.Work, formOne, "the same, one POST per event as plain River", 1)
	most("at a steady rate, time to answer, p50", r.Steady.form(formOurs).Answer, p50, 5)
	most("at a steady rate, received to the CRM's answer, p50", r.Steady.form(formOurs).Delivery, p50, 20)
	least(r.Together, formOurs, "everything at once, against plain River", 3)
	least(r.Together, formOurs100, "the same with events_per_job: 100", 5)
	least(r.Together, formOne, "the same, one POST per event as plain River", 2)
	if r.PeakBytes > 0 {
		r.aim("resident memory of partnersync", "≤ 100 MB", fmt.Sprintf("%.0f MB", megabytes(r.PeakBytes)), megabytes(r.PeakBytes) <= 100)
	}
}

func (r *Report) aim(name, want, got string, met bool) {
	r.Aims = append(r.Aims, Aim{name, want, got, met})
}

func (p *Part) ratios() []Ratio {
	if p == nil {
		return nil
	}
	return p.Ratios
}

// form returns the result of a form; a zero one where it was not measured.
func (p *Part) form(name string) *Form {
	if p != nil {
		for i := range p.Forms {
			if p.Forms[i].Name == name {
				return &p.Forms[i]
			}
		}
	}
	return &Form{}
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }

// show prints the result of a part; without a name that of none, which is where it was
// measured.
func (r *Report) show(out io.Writer, part string) error {
	switch part {
	case "":
		return r.printHead(out)
	case "receive":
		return r.Receive.print(out, "Receiving: as many requests as are answered", "requests/s")
	case "work":
		return r.Work.print(out, "Working: from a full queue to the CRM", "events/s")
	case "steady":
		return r.Steady.print(out, "At a steady rate: receiver and workers", "events/s")
	case "together":
		return r.Together.print(out, "Everything at once: load, receiver, workers, CRM and Postgres", "events/s")
	}
	var err error
	for _, t := range r.Tables {
		if t.Part == part {
			err = errors.Join(err, t.print(out))
		}
	}
	return err
}

func (r *Report) printHead(out io.Writer) error {
	e := r.Environment
	fmt.Fprintf(out, "partnersync on %d cores, %s, %s, %s, %s", e.Cores, e.System, e.Go, e.Postgres, e.Date)
	if e.Load != "" {
		fmt.Fprintf(out, ", load average %s before", e.Load)
	}
	_, err := fmt.Fprintln(out)
	if r.Short {
		_, err = fmt.Fprintln(out, "a short run: it shows that everything works, the numbers mean nothing")
	}
	return err
}

func (p *Part) print(out io.Writer, title, unit string) error {
	if p == nil {
		return nil
	}
	fmt.Fprintf(out, "\n%s\n", title)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "  form\t%s\tanswer p50\tp99\tdelivered p50\tp99\tevents\tper CRM request\tpeak memory\tprocessor µs per event\n", unit)
	for _, f := range p.Forms {
		fmt.Fprintf(w, "  %s\t%.0f\t%s\t%s\t%d\t%s\t%s\t%s\n", f.Name, f.PerSecond, f.Answer, f.Delivery, f.Events, f.perRequest(), f.memory(), f.cost())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range p.Ratios {
		fmt.Fprintf(out, "  %s: %.1f × (%.1f to %.1f)", x.Name, x.Median, x.Least, x.Most)
		if x.Processor > 0 {
			fmt.Fprintf(out, "; by processor time per event %.1f ×", x.Processor)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// String gives two columns.
func (s *Spread) String() string {
	if s == nil {
		return "\t"
	}
	return fmt.Sprintf("%.1f ms\t%.1f ms", s.P50, s.P99)
}

func (f *Form) perRequest() string {
	if f.Requests == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", float64(f.Events)/float64(f.Requests))
}

func (f *Form) memory() string {
	if f.PeakBytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f MB", megabytes(f.PeakBytes))
}

func (f *Form) cost() string {
	var parts []string
	for _, who := range slices.Sorted(maps.Keys(f.Cost)) {
		if f.Cost[who] >= 0.5 {
			parts = append(parts, fmt.Sprintf("%s %.0f", who, f.Cost[who]))
		}
	}
	return strings.Join(parts, ", ")
}

func (r *Report) printAims(out io.Writer) error {
	if len(r.Aims) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nAims")
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, a := range r.Aims {
		verdict := "missed"
		if a.Met {
			verdict = "met"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", a.Name, a.Want, a.Got, verdict)
	}
	return w.Flush()
}
