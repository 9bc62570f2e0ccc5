package grafana

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// panel draws one panel with the answers to its queries.
func (c *canvas) panel(p *Panel, box rect, curves []curve) {
	c.printf(`<rect x="%d" y="%d" width="%d" height="%d" fill="#ffffff" stroke="#dcdee0"/>`+"\n", box.x+3, box.y+3, box.w-6, box.h-6)
	c.text(box.x+12, box.y+20, 12, "#24292e", "start", shortened(p.Title, box.w-20))
	inner := rect{box.x + 12, box.y + 30, box.w - 24, box.h - 40}
	if len(curves) == 0 {
		c.text(box.x+box.w/2, box.y+box.h/2+10, 12, "#8e9297", "middle", "nothing")
		return
	}
	switch p.Type {
	case "stat":
		v := curves[0].last()
		text := measure(v, p.FieldConfig.Defaults.Unit)
		for _, m := range p.FieldConfig.Defaults.Mappings {
			if w, ok := m.Options[fmt.Sprint(v)]; ok {
				text = w.Text
			}
		}
		c.text(box.x+box.w/2, box.y+box.h/2+22, 28, p.colour(v), "middle", text)
	case "bargauge":
		c.bars(p, inner, curves)
	case "state-timeline":
		c.states(p, inner, curves)
	case "table":
		c.table(p, inner, curves)
	default:
		c.curves(p, inner, curves)
	}
}

// colour is that of the threshold that a value has reached.
func (p *Panel) colour(v float64) string {
	name := "text"
	for _, s := range p.FieldConfig.Defaults.Thresholds.Steps {
		if s.Value == nil || v >= *s.Value {
			name = s.Color
		}
	}
	return inks[name]
}

func (c *canvas) bars(p *Panel, box rect, curves []curve) {
	most := 0.0
	for _, one := range curves {
		most = max(most, one.last())
	}
	step := min(box.h/len(curves), 44)
	for i, one := range curves {
		v, y := one.last(), box.y+i*step
		c.text(box.x, y+11, 11, "#24292e", "start", shortened(one.name, box.w-90))
		c.text(box.x+box.w, y+11, 11, "#24292e", "end", measure(v, p.FieldConfig.Defaults.Unit))
		c.rect(box.x, y+16, box.w, step-26, "#eef0f2")
		c.rect(box.x, y+16, int(float64(box.w)*v/max(most, 1e-9)), step-26, p.colour(v))
	}
}

func (c *canvas) states(p *Panel, box rect, curves []curve) {
	words := p.FieldConfig.Defaults.Mappings[0].Options
	seen := map[string]bool{}
	step := min((box.h-20)/len(curves), 50)
	for i, one := range curves {
		y := box.y + i*step
		c.text(box.x, y+step/2+4, 11, "#24292e", "start", shortened(one.name, 70))
		wide := float64(box.w-80) / float64(len(one.values))
		for from := 0; from < len(one.values); {
			upto := from
			for upto < len(one.values) && (one.values[upto] == one.values[from] || math.IsNaN(one.values[upto]) && math.IsNaN(one.values[from])) {
				upto++
			}
			if v := one.values[from]; !math.IsNaN(v) {
				key := fmt.Sprint(v)
				seen[key] = true
				x := box.x + 80 + int(float64(from)*wide)
				c.rect(x, y+4, box.x+80+int(float64(upto)*wide)-x, step-8, inks[words[key].Color])
			}
			from = upto
		}
	}
	x := box.x
	for i := range len(words) {
		if key := fmt.Sprint(i); seen[key] {
			x = c.key(x, box.y+box.h, inks[words[key].Color], words[key].Text, box.x+box.w)
		}
	}
}

// key is an entry of a legend; it returns where the next one begins.
func (c *canvas) key(x, y int, ink, name string, right int) int {
	name = shortened(name, right-x-14)
	c.rect(x, y-4, 10, 4, ink)
	c.text(x+14, y, 10, "#4b5563", "start", name)
	return x + 24 + len([]rune(name))*6
}

func (c *canvas) table(p *Panel, box rect, curves []curve) {
	options := p.Transformations[0].Options
	order, titles := options["indexByName"].(map[string]int), options["renameByName"].(map[string]string)
	columns := make([]string, len(order))
	for label, i := range order {
		columns[i] = label
	}
	slices.SortStableFunc(curves, func(a, b curve) int {
		switch {
		case a.last() > b.last():
			return -1
		case a.last() < b.last():
			return 1
		}
		return strings.Compare(fmt.Sprint(a.labels), fmt.Sprint(b.labels))
	})
	rows := curves[:min(len(curves), (box.h-12)/20)]
	cells, widest, sum := make([][]string, len(columns)), make([]int, len(columns)), 0
	for i, label := range columns {
		cells[i] = []string{titles[label]}
		for _, one := range rows {
			text := p.worded(titles[label], one.labels[label])
			if label == "Value" {
				text = measure(math.Round(one.last()), p.FieldConfig.Defaults.Unit)
			}
			cells[i] = append(cells[i], text)
		}
		for _, text := range cells[i] {
			widest[i] = max(widest[i], len([]rune(text))+2)
		}
		sum += widest[i]
	}
	x := box.x
	for i, column := range cells {
		wide := box.w * widest[i] / sum
		c.text(x, box.y+10, 11, "#1f60c4", "start", shortened(column[0], wide))
		for j, text := range column[1:] {
			c.text(x, box.y+30+j*20, 11, "#24292e", "start", shortened(text, wide))
		}
		x += wide
	}
}

// worded is what a column says in the place of a value.
func (p *Panel) worded(title, value string) string {
	for _, o := range p.FieldConfig.Overrides {
		if o.Matcher.Options != title {
			continue
		}
		for _, property := range o.Properties {
			if mappings, ok := property.Value.([]Mapping); ok {
				if w, ok := mappings[0].Options[value]; ok {
					return w.Text
				}
			}
		}
	}
	return value
}

// curves draws lines, or areas that add up.
func (c *canvas) curves(p *Panel, box rect, curves []curve) {
	stacking := p.FieldConfig.Defaults.Custom["stacking"].(map[string]any)["mode"] == "normal"
	box = rect{box.x + margin, box.y, box.w - margin - 4, box.h - 32}
	n := len(curves[0].values)
	base := make([]float64, n)
	most := 0.0
	tops := make([][]float64, len(curves))
	for i := range curves {
		tops[i] = slices.Clone(curves[i].values)
		if stacking && !p.apart(curves[i].name) {
			for j, v := range tops[i] {
				if !math.IsNaN(v) {
					base[j] += v
				}
				tops[i][j] = base[j]
			}
		}
		for _, v := range tops[i] {
			if !math.IsNaN(v) {
				most = max(most, v)
			}
		}
	}
	step, steps := scale(most, p.FieldConfig.Defaults.Unit)
	most = step * float64(steps)
	for i := range steps + 1 {
		y := box.y + box.h - i*box.h/steps
		c.printf(`<path d="M%d %dH%d" stroke="#e8eaec"/>`+"\n", box.x, y, box.x+box.w)
		c.text(box.x-6, y+4, 10, "#6b7280", "end", measure(step*float64(i), p.FieldConfig.Defaults.Unit))
	}
	x := func(j int) int { return box.x + j*box.w/max(n-1, 1) }
	y := func(v float64) int { return box.y + box.h - int(v/most*float64(box.h)) }
	// The topmost first, so that the areas below are drawn over it.
	for i, top := range slices.Backward(tops) {
		ink := p.ink(curves[i].name, i)
		apart := p.apart(curves[i].name)
		area := stacking && !apart
		path, from := strings.Builder{}, -1 // from: where the present piece begins
		for j := range n + 1 {
			switch {
			case j == n || math.IsNaN(top[j]):
				if area && from >= 0 {
					fmt.Fprintf(&path, "L%d %dL%d %dZ", x(j-1), y(0), x(from), y(0))
				}
				from = -1
			case from < 0:
				fmt.Fprintf(&path, "M%d %d", x(j), y(top[j]))
				from = j
			default:
				fmt.Fprintf(&path, "L%d %d", x(j), y(top[j]))
			}
		}
		switch {
		case apart:
			c.printf(`<path d="%s" fill="none" stroke="%s" stroke-dasharray="6 6"/>`+"\n", &path, ink)
		case area:
			c.printf(`<path d="%s" fill="%s" fill-opacity="0.85"/>`+"\n", &path, ink)
		default:
			c.printf(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", &path, ink)
		}
	}
	left := box.x - margin + 2
	at, row := left, 0
	for i, one := range curves {
		if math.IsNaN(one.last()) && len(curves) > 6 {
			continue
		}
		if at > left && at+24+len([]rune(one.name))*6 > box.x+box.w {
			at, row = left, row+1
		}
		if row > 1 {
			break
		}
		at = c.key(at, box.y+box.h+18+row*14, p.ink(one.name, i), one.name, box.x+box.w)
	}
}

// margin is the room for the values on the left of a panel with curves.
const margin = 64

// scale divides an axis up to at least the given value into a few steps that are easy
// to read in the unit.
func scale(most float64, unit string) (step float64, steps int) {
	if most <= 0 {
		return 1, 1
	}
	least := most / 5
	step = math.Pow(10, math.Floor(math.Log10(least)))
	for _, by := range []float64{1, 2, 5, 10} {
		if step*by >= least {
			step *= by
			break
		}
	}
	switch {
	case unit == "bytes":
		step = math.Exp2(math.Ceil(math.Log2(least)))
	case unit == "s" && least > 10:
		for _, seconds := range []float64{15, 30, 60, 120, 300, 600, 900, 1800, 3600} {
			if seconds >= least {
				step = seconds
				break
			}
		}
	}
	return step, int(math.Ceil(most/step - 1e-9))
}

// ink is the colour of the i-th series.
func (p *Panel) ink(name string, i int) string {
	if p.apart(name) {
		return inks["text"]
	}
	for _, o := range p.FieldConfig.Overrides {
		if o.Matcher.ID != "byName" || o.Matcher.Options != name {
			continue
		}
		for _, property := range o.Properties {
			if colour, ok := property.Value.(map[string]any); ok && property.ID == "color" {
				return inks[fmt.Sprint(colour["fixedColor"])]
			}
		}
	}
	return turn[i%len(turn)]
}

// apart reports whether a series is a limit, which nothing is added to.
func (p *Panel) apart(name string) bool {
	return slices.ContainsFunc(p.FieldConfig.Overrides, func(o Override) bool {
		if o.Matcher.ID != "byRegexp" {
			return false
		}
		matched, err := regexp.MatchString(o.Matcher.Options, name)
		return err == nil && matched
	})
}
