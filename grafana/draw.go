package grafana

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Draw asks a Prometheus the queries of a dashboard and writes what it answers as
// an SVG. It is no Grafana: it draws enough to show what the panels are about.
func Draw(ctx context.Context, w io.Writer, d *Dashboard, prometheusURL string, from, to time.Time) error {
	a := asker{url: prometheusURL, from: from, to: to, step: max(to.Sub(from)/120, time.Second)}
	c := &canvas{}
	height := 0
	for _, p := range d.Panels {
		height = max(height, p.GridPos.Y+p.GridPos.H)
	}
	c.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="Helvetica, Arial, sans-serif" font-size="11">`+"\n", width*cell, height*line+head)
	c.printf(`<rect width="100%%" height="100%%" fill="#f4f5f5"/>` + "\n")
	c.text(10, 24, 18, "#24292e", "start", d.Title)
	c.text(10, 42, 11, "#6b7280", "start", d.Description)
	for i := range d.Panels {
		p := &d.Panels[i]
		box := rect{p.GridPos.X * cell, head + p.GridPos.Y*line, p.GridPos.W * cell, p.GridPos.H * line}
		if p.Type == "row" {
			c.text(box.x+10, box.y+20, 14, "#24292e", "start", p.Title)
			continue
		}
		var curves []curve
		for _, t := range p.Targets {
			got, err := a.ask(ctx, t)
			if err != nil {
				return fmt.Errorf("draw %s, %s: %w", d.Title, p.Title, err)
			}
			curves = append(curves, got...)
		}
		c.panel(p, box, curves)
	}
	c.printf("</svg>\n")
	_, err := io.WriteString(w, c.out.String())
	return err
}

// A cell of the grid, and the room for the title, in pixels.
const (
	cell = 50
	line = 30
	head = 56
)

type rect struct{ x, y, w, h int }

// curve is one series. One that was asked for as it is now has one value.
type curve struct {
	name   string
	labels map[string]string
	values []float64 // at even distances; NaN where there is none
}

func (c *curve) last() float64 {
	for _, v := range slices.Backward(c.values) {
		if !math.IsNaN(v) {
			return v
		}
	}
	return math.NaN()
}

type asker struct {
	url      string
	from, to time.Time
	step     time.Duration
}

func (a *asker) ask(ctx context.Context, t Target) ([]curve, error) {
	window := max(4*a.step, 15*time.Second).Round(time.Second)
	expr := strings.NewReplacer("$__rate_interval", window.String(), "$__range", a.to.Sub(a.from).Round(time.Second).String(),
		"$job", ".*", "$instance", ".*", "$sink", ".*", "$source", ".*").Replace(t.Expr)
	params := url.Values{"query": {expr}, "time": {stamp(a.to)}}
	path := "/api/v1/query"
	if !t.Instant {
		path = "/api/v1/query_range"
		params.Set("start", stamp(a.from))
		params.Set("end", stamp(a.to))
		params.Set("step", strconv.FormatFloat(a.step.Seconds(), 'f', 3, 64))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string `json:"error"`
		Data  struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
				Values [][2]any          `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %w", resp.Status, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	var out []curve
	for _, r := range answer.Data.Result {
		c := curve{name: legend(t.LegendFormat, r.Metric), labels: r.Metric}
		if t.Instant {
			c.values = []float64{number64(r.Value[1])}
		} else {
			c.values = make([]float64, int(a.to.Sub(a.from)/a.step)+1)
			for i := range c.values {
				c.values[i] = math.NaN()
			}
			for _, v := range r.Values {
				i := int(math.Round((number64(v[0]) - float64(a.from.UnixMilli())/1000) / a.step.Seconds()))
				if i >= 0 && i < len(c.values) {
					c.values[i] = number64(v[1])
				}
			}
		}
		out = append(out, c)
	}
	return out, nil
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// number64 reads times, which are numbers, and values, which are texts.
func number64(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case string:
		if f, err := strconv.ParseFloat(v, 64); err == nil && !math.IsInf(f, 0) {
			return f
		}
	}
	return math.NaN()
}

func legend(format string, labels map[string]string) string {
	for name, value := range labels {
		format = strings.ReplaceAll(format, "{{"+name+"}}", value)
	}
	return format
}

// canvas collects SVG.
type canvas struct{ out strings.Builder }

func (c *canvas) printf(format string, args ...any) { fmt.Fprintf(&c.out, format, args...) }

func (c *canvas) text(x, y, size int, colour, anchor, text string) {
	c.printf(`<text x="%d" y="%d" font-size="%d" fill="%s" text-anchor="%s">%s</text>`+"\n", x, y, size, colour, anchor, html.EscapeString(text))
}

func (c *canvas) rect(x, y, w, h int, fill string) {
	c.printf(`<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", x, y, max(w, 0), max(h, 0), fill)
}

// shortened is text that takes no more than w pixels of the small font.
func shortened(text string, w int) string {
	if r := []rune(text); len(r)*6 > w {
		return string(r[:max(w/6-1, 1)]) + "…"
	}
	return text
}

// inks are Grafana's names of colours, and those that series get in turn.
var inks = map[string]string{
	"green": "#56a64b", "blue": "#3274d9", "light-blue": "#8ab8ff", "purple": "#a352cc", "text": "#8e9297", "red": "#e02f44", "dark-red": "#ad0317",
	"orange": "#ff780a", "dark-orange": "#c4540a", "yellow": "#f2cc0c", "dark-yellow": "#cc9d00",
}

var turn = []string{"#56a64b", "#f2cc0c", "#3274d9", "#ff780a", "#e02f44", "#a352cc", "#37872d", "#e0b400", "#1f60c4", "#fa6400", "#8f3bb8", "#19730e"}

// measure writes a value in its unit.
func measure(v float64, unit string) string {
	if math.IsNaN(v) {
		return "no data"
	}
	scaled := func(base float64, names ...string) string {
		i := 0
		for math.Abs(v) >= base && i+1 < len(names) {
			v /= base
			i++
		}
		return strings.TrimRight(digits(v)+" "+names[i], " ")
	}
	switch unit {
	case "percentunit":
		return digits(v*100) + " %"
	case "bytes":
		return scaled(1024, "B", "KiB", "MiB", "GiB", "TiB")
	case "reqps":
		return scaled(1000, "req/s", "k req/s")
	case "s":
		switch {
		case v != 0 && math.Abs(v) < 0.001:
			return digits(v*1e6) + " µs"
		case v != 0 && math.Abs(v) < 1:
			return digits(v*1000) + " ms"
		case math.Abs(v) < 120:
			return digits(v) + " s"
		case math.Abs(v) < 7200:
			return digits(v/60) + " min"
		case math.Abs(v) < 172800:
			return digits(v/3600) + " h"
		}
		return digits(v/86400) + " d"
	}
	if suffix, ok := strings.CutPrefix(unit, "suffix:"); ok {
		return digits(v) + suffix
	}
	return scaled(1000, "", "k", "M", "G")
}

// digits are three that count.
func digits(v float64) string {
	decimals := 0
	if a := math.Abs(v); a != 0 && a < 100 {
		decimals = min(max(2-int(math.Floor(math.Log10(a))), 0), 4)
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
