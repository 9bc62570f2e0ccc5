package mappers

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"

	"partnersync/internal/diag"
)

// Bounds that no honest expression comes near. The length bounds how deep the
// parser goes: parentheses are no nodes.
const (
	maxNodes  = 1000
	maxLength = 10_000
)

// predicates are the built-ins of the language that stay: they run a condition
// or an expression for each element of a list.
var predicates = []string{"all", "any", "count", "filter", "find", "map", "none", "one"}

// operators are those of the language that stay. Left out are ranges and
// powers, whose results have no bounds.
var operators = []string{
	"==", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "and", "&&", "or", "||",
	"in", "contains", "startsWith", "endsWith", "matches", "??",
}

// check finds what is wrong with one expression. The type checker of the
// language runs without visitors: with one it would pass over the arguments
// of our functions.
type check struct {
	node  diag.Node
	want  Want
	scope *Scope
	d     *diag.Decoding
	src   string

	config *conf.Config
	tree   *parser.Tree
	failed bool
	arg    *argument // the last argument that a function refused
}

type argument struct {
	index   int // -1 is the call itself
	message string
	hint    string
}

// errorf reports a problem at a place inside the expression.
func (c *check) errorf(at file.Location, hint, format string, args ...any) {
	c.failed = true
	c.d.Problems.Add(diag.Problem{
		Pos:     c.node.PosAt(byteOffset(c.src, at.From)),
		Width:   max(at.To-at.From, 1),
		Message: fmt.Sprintf(format, args...),
		Hint:    hint,
	})
}

// yaml refuses what YAML has made of something that was meant as an expression.
func (c *check) yaml() bool {
	n := c.node
	switch {
	case !strings.HasPrefix(n.Tag(), "!!") && n.Tag() != "" && n.Tag() != "!":
		c.d.Errorf(n, "a leading ! is YAML's sign for a tag: write not, or put the whole expression in single quotes", "%q is no expression", n.Tag())
	case n.Kind() == diag.None || n.Kind() == diag.Null || n.Kind() == diag.Scalar && strings.TrimSpace(c.src) == "":
		c.d.Errorf(n, `write one, such as event.email or value("NEW")`, "an expression is missing here")
	case n.Kind() == diag.List:
		c.d.Errorf(n, "a leading [ or - is YAML's sign for a list: put the whole expression in single quotes", "expected an expression, found a list")
	case n.Kind() == diag.Map:
		c.d.Errorf(n, "a leading { or a name with a colon is YAML's sign for a map: put the whole expression in single quotes; event.email needs no {{ }} around it", "expected an expression, found a map")
	case len(c.src) > maxLength:
		c.d.Errorf(n, "split it up with let:", "the expression has more than %d characters", maxLength)
	case strings.Contains(c.src, "${"):
		at := strings.Index(c.src, "${")
		hint := "settings and secrets cannot be read by mappings"
		if inner := c.embraced("${", "}"); inner != "" {
			hint = fmt.Sprintf(`an expression reads it as it is: %s; texts are joined by +, such as "Deal " + event.key`, inner)
		}
		c.errorf(file.Location{From: len([]rune(c.src[:at])), To: len([]rune(c.src[:at])) + 2}, hint, "an expression cannot hold a reference such as ${NAME}")
	default:
		return true
	}
	return false
}

func (c *check) parse() bool {
	c.config = conf.CreateNew()
	c.config.MaxNodes = maxNodes
	c.config.DisableIfOperator = true
	for name := range c.config.Builtins {
		c.config.Disabled[name] = true
		if !slices.Contains(predicates, name) {
			delete(c.config.Builtins, name)
		}
	}
	env := types.Map{}
	for name, s := range c.scope.Variables {
		allow := c.scope.Allow
		if name != "event" {
			allow = nil
		}
		env[name] = typeOf(s, "", allow)
	}
	c.config.WithEnv(env)
	for _, f := range functions() {
		c.config.Functions[f.Name+called] = &builtin.Function{Name: f.Name, Validate: c.validate(f)}
	}
	tree, err := parser.ParseWithConfig(c.src, c.config)
	if err != nil {
		if inner := c.embraced("{{", "}}"); inner != "" {
			from := len([]rune(c.src[:strings.Index(c.src, "{{")]))
			c.errorf(file.Location{From: from, To: from + 2}, fmt.Sprintf(`write %s; texts are joined by +, such as "Deal " + event.key`, inner), "an expression has no {{ }} around what it reads")
			return false
		}
		c.syntax(err)
		return false
	}
	c.tree = tree
	return true
}

// embraced is what stands between signs of other template languages, where that begins
// with one of our variables.
func (c *check) embraced(left, right string) string {
	_, rest, _ := strings.Cut(c.src, left)
	inner, _, closed := strings.Cut(rest, right)
	inner = strings.TrimSpace(inner)
	name, _, _ := strings.Cut(inner, ".")
	if _, ok := c.scope.Variables[name]; !ok || !closed {
		return ""
	}
	return inner
}

// validate checks the arguments of one call, and remembers which one is wrong:
// the type checker itself can only point at the call.
func (c *check) validate(f *function) func([]reflect.Type) (reflect.Type, error) {
	return func(args []reflect.Type) (reflect.Type, error) {
		if a := f.refuse(args); a != nil {
			c.arg = a
			return nil, errors.New(a.message)
		}
		return goType(f.result), nil
	}
}

func goType(k Kind) reflect.Type {
	switch k {
	case Text:
		return reflect.TypeFor[string]()
	case Integer:
		return reflect.TypeFor[int]()
	case Number:
		return reflect.TypeFor[float64]()
	case Bool:
		return reflect.TypeFor[bool]()
	case List: // only texts are listed by functions
		return reflect.TypeFor[[]string]()
	}
	return reflect.TypeFor[any]()
}

// names refuses variables, functions, operators and forms that are not ours.
func (c *check) names() bool {
	c.tree.Node = c.name(c.tree.Node)
	return !c.failed
}

// name walks the tree from the top. It returns n, or what stands for it.
func (c *check) name(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		if n.Value == "null" {
			null := &ast.NilNode{}
			null.SetLocation(n.Location())
			return null
		}
		if _, ok := c.scope.Variables[n.Value]; !ok {
			c.unknownVariable(n)
		}
	case *ast.UnaryNode:
		n.Node = c.name(n.Node)
	case *ast.BinaryNode:
		c.operator(n)
		n.Left, n.Right = c.name(n.Left), c.name(n.Right)
	case *ast.ChainNode:
		n.Node = c.name(n.Node)
	case *ast.MemberNode:
		n.Node, n.Property = c.name(n.Node), c.name(n.Property)
	case *ast.SliceNode:
		n.Node = c.name(n.Node)
		if n.From != nil {
			n.From = c.name(n.From)
		}
		if n.To != nil {
			n.To = c.name(n.To)
		}
	case *ast.CallNode:
		c.call(n)
		c.nameAll(n.Arguments)
	case *ast.BuiltinNode:
		if !slices.Contains(predicates, n.Name) {
			c.unknownFunction(n.Location(), n.Name)
		} else if len(n.Arguments) < 2 {
			c.errorf(n.Location(), "len() counts all elements", "%s() takes a list and a condition", n.Name)
		}
		if _, null := n.Arguments[0].(*ast.NilNode); null {
			ast.Patch(&n.Arguments[0], &ast.ArrayNode{})
		}
		c.nameAll(n.Arguments)
	case *ast.PredicateNode:
		n.Node = c.name(n.Node)
	case *ast.PointerNode:
		if n.Name != "" && n.Name != "index" {
			c.errorf(n.Location(), "# is the element, #index its number", "#%s is not known", n.Name)
		}
	case *ast.ConditionalNode:
		n.Cond, n.Exp1, n.Exp2 = c.name(n.Cond), c.name(n.Exp1), c.name(n.Exp2)
	case *ast.ArrayNode:
		c.nameAll(n.Nodes)
	case *ast.MapNode:
		c.nameAll(n.Pairs)
	case *ast.PairNode:
		n.Key, n.Value = c.name(n.Key), c.name(n.Value)
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		c.errorf(n.Location(), "name it under let: in the mapping", "an expression cannot declare variables")
	case *ast.BytesNode:
		c.errorf(n.Location(), "", "an expression cannot hold bytes")
	}
	return n
}

func (c *check) nameAll(nodes []ast.Node) {
	for i := range nodes {
		nodes[i] = c.name(nodes[i])
	}
}

func (c *check) operator(n *ast.BinaryNode) {
	if !slices.Contains(operators, n.Operator) {
		c.errorf(n.Location(), "", "the operator %s is not available", n.Operator)
	}
	switch n.Operator {
	case "==", "!=":
		// "" is another way to write null, whatever the other side is.
		for _, side := range []*ast.Node{&n.Left, &n.Right} {
			if s, ok := (*side).(*ast.StringNode); ok && s.Value == "" {
				ast.Patch(side, &ast.NilNode{})
			}
		}
	case "matches":
		pattern, ok := n.Right.(*ast.StringNode)
		if !ok {
			c.errorf(n.Right.Location(), `write it in quotes: event.name matches "^A.*"`, "matches takes a fixed pattern")
		} else if _, err := regexp.Compile(pattern.Value); err != nil {
			c.errorf(n.Right.Location(), "", "the pattern is wrong: %v", err)
			pattern.Value = ""
		}
	}
}

// called marks the name of a function where it is called, so that a name of let may be the
// same.
const called = "()"

func (c *check) call(n *ast.CallNode) {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		c.errorf(n.Callee.Location(), "functions stand in front: lower(event.email)", "a value cannot be called")
		return
	}
	f := functionNamed(callee.Value)
	if f == nil {
		c.unknownFunction(callee.Location(), callee.Value)
		return
	}
	callee.Value += called
	if len(n.Arguments) != 2 {
		return
	}
	switch f.Name {
	case "lookup":
		n.Arguments[1] = c.table(n.Arguments[1])
	case "date":
		c.fixed(n.Arguments[1], "time zone", "write a name of the tz database, such as America/Toronto or UTC", func(name string) bool {
			_, err := time.LoadLocation(name)
			return err == nil
		})
	case "cents":
		c.fixed(n.Arguments[1], "currency", "write its three letters, such as USD", func(name string) bool {
			_, _, ok := Currency(name)
			return ok
		})
	}
}

// fixed checks an argument that is written out: it will not be right later.
func (c *check) fixed(n ast.Node, what, hint string, known func(string) bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		if n.Value != "" && !known(n.Value) {
			c.errorf(n.Location(), hint, "unknown %s %q", what, n.Value)
		}
	case *ast.ConditionalNode:
		c.fixed(n.Exp1, what, hint, known)
		c.fixed(n.Exp2, what, hint, known)
	case *ast.BinaryNode:
		if n.Operator == "??" {
			c.fixed(n.Left, what, hint, known)
			c.fixed(n.Right, what, hint, known)
		}
	case *ast.CallNode:
		if f, ok := n.Callee.(*ast.IdentifierNode); ok && f.Value == "value" && len(n.Arguments) == 1 {
			c.fixed(n.Arguments[0], what, hint, known)
		}
	}
}

// table checks the name of a table. It returns the name for what stands there without quotes.
func (c *check) table(n ast.Node) ast.Node {
	if bare, ok := n.(*ast.IdentifierNode); ok && c.scope.Tables[bare.Value] != nil {
		c.errorf(n.Location(), fmt.Sprintf("write it in quotes: %q", bare.Value), "lookup() takes the name of a table")
		return &ast.StringNode{Value: bare.Value}
	}
	name, ok := n.(*ast.StringNode)
	if !ok {
		c.errorf(n.Location(), `write it in quotes: lookup(event.stage, "deal_stages")`, "lookup() takes the name of a table")
		return n
	}
	if c.scope.Tables[name.Value] != nil {
		return n
	}
	hint := diag.OneOf(name.Value, slices.Sorted(maps.Keys(c.scope.Tables)))
	if len(c.scope.Tables) == 0 {
		hint = "the config has no tables: yet"
	}
	c.errorf(n.Location(), hint, "unknown table %q", name.Value)
	return n
}

func (c *check) unknownFunction(at file.Location, name string) {
	hint := elsewhere[strings.ToLower(name)]
	if hint == "" {
		hint = diag.DidYouMean(name, functionNames())
	}
	c.errorf(at, hint, "unknown function %s()", name)
}

func (c *check) unknownVariable(n *ast.IdentifierNode) {
	name := n.Value
	hint := diag.DidYouMean(name, slices.Sorted(maps.Keys(c.scope.Variables)))
	switch {
	case name == "partner":
		c.errorf(n.Location(), "the partner directory comes with a later version; use the fields of event", "partner is not available yet")
		return
	case name == "item":
		hint = "item exists in mappings with each:"
	case c.scope.Variables["event"].Fields[name].Kind != "":
		hint = fmt.Sprintf("did you mean event.%s?", name)
	case n == c.tree.Node && hint == "" && name[0] != '$':
		hint = fmt.Sprintf("a fixed text is written value(%q)", name)
	case functionNamed(name) != nil:
		hint = fmt.Sprintf("a function is called with parentheses: %s(…)", name)
	}
	if hint == "" {
		hint = diag.OneOf(name, slices.Sorted(maps.Keys(c.scope.Variables)))
	}
	c.errorf(n.Location(), hint, "unknown variable %s", name)
}

// types runs the type checker until it is content or says what is not ours to mend.
func (c *check) types() bool {
	for {
		_, err := new(checker.Checker).Check(c.tree, c.config)
		if err == nil {
			break
		}
		var at *file.Error
		if !errors.As(err, &at) {
			c.d.Errorf(c.node, "", "this is no expression")
			return false
		}
		c.privates()
		if !c.failed || strings.HasPrefix(at.Message, "unknown field") {
			if c.unknownField(at) {
				continue
			}
			c.mismatch(at)
		}
		return false
	}
	c.privates()
	c.times()
	c.endings()
	if !c.failed {
		c.result()
	}
	return !c.failed
}

// unknownField lets event["name"] pass and reports event.name. Either way the
// check goes on as if the field could hold anything.
func (c *check) unknownField(at *file.Error) bool {
	if !strings.HasPrefix(at.Message, "unknown field") {
		return false
	}
	found := false
	visit(c.tree.Node, func(n ast.Node) {
		// A call that has a type is not checked again.
		if call, ok := n.(*ast.CallNode); ok {
			call.SetNature(nature.Nature{})
		}
		m, ok := n.(*ast.MemberNode)
		if !ok || m.Property.Location() != at.Location {
			return
		}
		name, ok := m.Property.(*ast.StringNode)
		if !ok {
			return
		}
		found = true
		if []rune(c.src)[m.Location().From] != '[' {
			c.errorf(at.Location, c.fieldHint(m, name.Value), "unknown field %s", name.Value)
		}
		property := &ast.ConstantNode{Value: name.Value}
		ast.Patch(&m.Property, property)
	})
	return found
}

func (c *check) fieldHint(m *ast.MemberNode, name string) string {
	base := m.Node.Nature()
	var fields []string
	if base.TypeData != nil {
		fields = slices.Sorted(maps.Keys(base.Fields))
	}
	if hint := diag.DidYouMean(name, fields); hint != "" {
		return hint
	}
	if path := chain(m.Node); path != nil {
		hint := fmt.Sprintf("a field that the schema does not know is read as %s[%q]", strings.Join(path, "."), name)
		if path[0] == "event" {
			hint = "`partnersync show event NAME` lists the fields of an event; " + hint
		}
		return hint
	}
	return diag.OneOf(name, fields)
}

func (c *check) privates() {
	visit(c.tree.Node, func(n ast.Node) {
		m, ok := n.(*ast.MemberNode)
		if !ok || m.Nature().Type != hiddenType {
			return
		}
		hint := "let the source allow it, if you must"
		if path := chain(m); len(path) > 1 && path[0] == "event" {
			hint = fmt.Sprintf("if you must, let the source say allow: [%s]", strings.Join(path[1:], "."))
		}
		c.errorf(m.Property.Location(), hint, "this field is private and cannot be read")
	})
}

// times refuses what the type checker would let people do with times.
func (c *check) times() {
	isTime := func(n ast.Node) bool { return n.Nature().Type == reflect.TypeFor[time.Time]() }
	visit(c.tree.Node, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.MemberNode:
			if isTime(n.Node) {
				c.errorf(n.Location(), "date(), datetime() and unix_ms() make something of it", "a time has no fields")
			}
		case *ast.BinaryNode:
			if (n.Operator == "-" || n.Operator == "+") && (isTime(n.Left) || isTime(n.Right)) {
				c.errorf(n.Location(), "", "times can be compared, but not added or subtracted")
			}
		}
	})
}

// endings warns of custom fields by a name that holds only for one account of the vendor.
func (c *check) endings() {
	visit(c.tree.Node, func(n ast.Node) {
		path := chain(n)
		if _, is := n.(*ast.MemberNode); !is || len(path) < 3 || path[len(path)-2] != "meta" {
			return
		}
		name := path[len(path)-1]
		if at := strings.LastIndexByte(name, '_'); at > 0 && random(name[at+1:]) {
			c.d.Problems.Add(diag.Problem{
				Pos: c.node.PosAt(byteOffset(c.src, n.(*ast.MemberNode).Property.Location().From)), Width: len([]rune(name)), Severity: diag.Warning,
				Message: fmt.Sprintf("the name of this custom field has an ending, _%s, that looks random", name[at+1:]),
				Hint:    fmt.Sprintf("field(%s, %q) finds it whatever the ending", strings.Join(path[:len(path)-2], "."), name[:at]),
			})
		}
	})
}

// result holds what comes out against what the place wants.
func (c *check) result() {
	got := c.tree.Node.Nature()
	if got.Nil || got.Type == nil || got.Kind == reflect.Interface {
		return
	}
	k := kindOf(got.Type)
	need, fits := "", true
	switch c.want {
	case WantBool:
		need, fits = "true or false", k == Bool
	case WantText:
		need, fits = "a text", k == Text || k == Integer || k == Number
	case WantList:
		need, fits = "a list", k == List
	case WantNumber:
		need, fits = "a number", k == Integer || k == Number
	case WantTime:
		need, fits = "a time", k == Time
	case WantSingle:
		need, fits = "a single value", k != List && k != Object
	case WantTexts:
		elem := schemaOf(got).Elem
		need, fits = "a text or a list of texts", k != Object && (elem == nil || elem.Kind != Object && elem.Kind != List && elem.Kind != Map)
	}
	if fits {
		return
	}
	hint := ""
	if c.want == WantBool && k != List && k != Object {
		hint = `compare it, such as event.status == "active"`
	}
	c.d.Errorf(c.node, hint, "this must be %s, but is %s", need, words(k))
	c.failed = true
}
