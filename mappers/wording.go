package mappers

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// wording turns a message of the type checker into plain words. Groups are
// names of Go types, except where noted.
var wording = []struct {
	pattern *regexp.Regexp
	message string // $1, $2 are the groups
	hint    string
}{
	{regexp.MustCompile(`^invalid operation: (?:not|!) \(mismatched type (.+)\)$`), "not takes true or false, this is $1", `compare it first, such as not (event.status == "active")`},
	{regexp.MustCompile(`^invalid operation: - \(mismatched type (.+)\)$`), "- takes a number, this is $1", ""},
	{regexp.MustCompile(`^invalid operation: \+ \(mismatched types (.+) and (.+)\)$`), "+ takes two texts or two numbers, these are $1 and $2", "string(x) makes a text of a number"},
	{regexp.MustCompile(`^invalid operation: (?:==|!=) \(mismatched types (.+) and (.+)\)$`), "$1 and $2 are never equal", `texts stand in quotes, numbers do not; ids are texts`},
	{regexp.MustCompile(`^invalid operation: (?:<=|>=|<|>) \(mismatched types (.+) and (.+)\)$`), "$1 and $2 cannot be compared", ""},
	{regexp.MustCompile(`^invalid operation: (?:and|or|&&|\|\|) \(mismatched types (.+) and (.+)\)$`), "both sides must be true or false, these are $1 and $2", `compare first, such as event.status == "active" and …`},
	{regexp.MustCompile(`^invalid operation: (?:matches|contains|startsWith|endsWith) \(mismatched types (.+) and (.+)\)$`), "both sides must be texts, these are $1 and $2", "whether a list holds a value is asked as: value in list"},
	{regexp.MustCompile(`^invalid operation: in \(mismatched types (.+) and (.+)\)$`), "in asks whether a list or an object holds a value, but this is $2", ""},
	{regexp.MustCompile(`^invalid operation: .+ \(mismatched types (.+) and (.+)\)$`), "both sides must be numbers, these are $1 and $2", ""},
	{regexp.MustCompile(`^cannot use (.+) as type (.+) in (?:array|map key)$`), "this is $1, but each element of the list is $2", ""},
	{regexp.MustCompile(`^cannot use (.+) to get an element from .+$`), "a field is named by a text, this is $1", ""},
	{regexp.MustCompile(`^array elements can only be selected using an integer \(got (.+)\)$`), "an element of a list is chosen by its number, this is $1", "map(list, .field) takes a field of every element"},
	{regexp.MustCompile(`^type (.+) has no (?:field|method) .+$`), "$1 has no fields", ""},
	{regexp.MustCompile(`^type (.+)\[.+\] is undefined$`), "$1 has no elements", ""},
	{regexp.MustCompile(`^cannot slice (.+)$`), "$1 cannot be cut", ""},
	{regexp.MustCompile(`^non-integer slice index (.+)$`), "a place is a whole number, this is $1", ""},
	{regexp.MustCompile(`^non-bool expression \(type (.+)\) used as condition$`), "a condition must be true or false, this is $1", `compare it, such as event.status == "active" ? …`},
	{regexp.MustCompile(`^predicate should return boolean \(got (.+)\)$`), "the condition must be true or false, this is $1", `compare it, such as filter(list, .status == "active")`},
	{regexp.MustCompile(`^builtin \w+ takes only array \(got (.+)\)$`), "this must be a list, but is $1", ""},
	{regexp.MustCompile(`^type nil has no field .+$`), "null has no fields", ""},
}

// elsewhere says how to write what other languages have a function for.
var elsewhere = map[string]string{
	"now":       "hook.received_at is when the event came",
	"if":        "write condition ? a : b",
	"coalesce":  "write a ?? b",
	"default":   "write a ?? b",
	"concat":    "write a + b, or join([a, b], \" \")",
	"substring": "write text[0:10]",
	"substr":    "write text[0:10]",
	"first":     "write list[0]",
	"last":      "write list[-1]",
	"exists":    "has(x) tells whether a value is there",
	"isnull":    "write x == null",
	"contains":  "write text contains part, or value in list",
}

// mismatch reports what the type checker found, in plain words.
func (c *check) mismatch(at *file.Error) {
	if a := c.arg; a != nil && at.Message == a.message {
		loc := at.Location
		visit(c.tree.Node, func(n ast.Node) {
			if call, ok := n.(*ast.CallNode); ok && call.Location() == at.Location && a.index >= 0 && a.index < len(call.Arguments) {
				loc = span(call.Arguments[a.index])
			}
		})
		c.errorf(loc, a.hint, "%s", a.message)
		return
	}
	for _, w := range wording {
		groups := w.pattern.FindStringSubmatch(at.Message)
		if groups == nil {
			continue
		}
		message := w.message
		for i, g := range groups[1:] {
			message = strings.ReplaceAll(message, "$"+string(rune('1'+i)), typeWords(g))
		}
		loc := at.Location
		if strings.Contains(message, "condition must be") || strings.Contains(message, "must be a list") {
			visit(c.tree.Node, func(n ast.Node) {
				if m, ok := n.(*ast.MemberNode); ok && m.Location() == loc {
					loc = span(m)
				}
			})
		}
		c.errorf(loc, w.hint, "%s", message)
		return
	}
	c.errorf(at.Location, "", "%s", at.Message)
}

// typeWords names a Go type as the type checker prints it.
func typeWords(name string) string {
	switch {
	case name == "string":
		return words(Text)
	case name == "int", name == "int64":
		return words(Integer)
	case name == "float64":
		return words(Number)
	case name == "bool":
		return words(Bool)
	case name == "time.Time":
		return words(Time)
	case strings.HasPrefix(name, "[]"):
		return words(List)
	case strings.HasPrefix(name, "map["):
		return words(Object)
	case name == "nil", name == "unknown":
		return "null"
	}
	return name
}

var unexpected = regexp.MustCompile(`^unexpected token (\w+)(?:\("(.*)"\))?$`)

// plainWords are several words without anything of an expression: somebody means the text.
var plainWords = regexp.MustCompile(`^\p{L}[\p{L}\p{N}'’-]*( +[\p{L}\p{N}][\p{L}\p{N}'’-]*)+[.!?]?$`)

func (c *check) syntax(err error) {
	var at *file.Error
	if !errors.As(err, &at) {
		c.d.Errorf(c.node, "", "this is no expression")
		return
	}
	loc, message, hint := at.Location, at.Message, ""
	if m := unexpected.FindStringSubmatch(message); m != nil {
		message = fmt.Sprintf("%q is not expected here", m[2])
		switch {
		case m[1] == "EOF":
			message = "the expression ends too early"
			loc = file.Location{From: max(len([]rune(c.src))-1, 0)}
		case m[2] == "=":
			hint = "== compares two values"
		case m[1] == "Identifier" || m[1] == "String" || m[1] == "Number":
			hint = "an operator or a comma is missing in front of it"
			if plainWords.MatchString(c.src) {
				hint = fmt.Sprintf("a fixed text is written value(%q)", c.src)
			}
		}
	}
	switch {
	case strings.HasPrefix(message, "Operator (") && strings.Contains(message, "coalesce"):
		message, hint = "?? cannot be mixed with other operators", "put it in parentheses: (event.a ?? 0) + 1"
	case strings.Contains(message, "maximum allowed nodes"):
		message, hint = fmt.Sprintf("the expression has more than %d parts", maxNodes), "split it up with let:"
	case message == "literal not terminated":
		message = "a quote is not closed"
	case message == "unexpected end of expression":
		message = "the expression ends too early"
	case strings.HasPrefix(message, "unrecognized character"):
		message = fmt.Sprintf("%q is not expected here", string([]rune(c.src)[min(loc.From, len([]rune(c.src))-1)]))
	case strings.HasPrefix(message, "invalid integer literal"), strings.HasPrefix(message, "integer literal is too large"),
		strings.HasPrefix(message, "invalid float literal"), strings.HasPrefix(message, "float literal is too large"):
		message, hint = "this number is too large", "ids are texts and stand in quotes"
	case strings.HasPrefix(message, "expected at least"):
		message, hint = "an argument is missing", "this function takes a list and something to do with each element"
	}
	if comment := c.node.Comment(); comment != "" && !c.node.Quoted() {
		hint = `" #" starts a comment in YAML: put the whole expression in single quotes`
	}
	c.errorf(loc, hint, "%s", message)
}
