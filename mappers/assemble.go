package mappers

import (
	"reflect"
	"regexp"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
	"github.com/shopspring/decimal"
)

// Names of functions that no expression can spell.
const (
	fnPath    = ".path" // a variable, or a field right below one
	fnMember  = ".member"
	fnSlice   = ".slice"
	fnHolds   = ".holds" // a condition: null does not hold
	fnList    = ".list"
	fnInteger = ".integer"
	fnPresent = ".present"
	fnKey     = ".key"
	fnMatches = "matches"
)

// assemble builds the tree that runs from the one that was checked: every
// operator that fails on null, or knows no decimals, becomes a call of ours.
// What decides what runs (and, or, ?:, ??, the predicates) stays with the
// language. Each call gets the frame of the evaluation first.
func assemble(checked *parser.Tree, scope *Scope) (*vm.Program, error) {
	config := conf.CreateNew()
	for name, f := range operations() {
		config.Functions[name] = &builtin.Function{Name: name, Func: framed(f, name == fnPath || name == fnMember || name == fnList)}
	}
	for _, f := range functions() {
		config.Functions[f.Name] = &builtin.Function{Name: f.Name, Func: framed(f.bound(scope), f.Name == "field")}
	}
	return compiler.Compile(&parser.Tree{Node: rewrite(checked.Node), Source: checked.Source}, config)
}

// operation is a function with the frame of the evaluation.
type operation func(f *frame, args []any) (any, error)

// framed bounds what op may do. One that is shallow does not look inside its arguments.
func framed(op operation, shallow bool) func(args ...any) (any, error) {
	return func(args ...any) (any, error) {
		f := args[0].(*frame)
		look := args[1:]
		if shallow {
			look = nil
		}
		if err := f.step(look); err != nil {
			return nil, err
		}
		v, err := op(f, args[1:])
		if err != nil {
			return nil, err
		}
		return v, f.spend(v)
	}
}

func rewrite(n ast.Node) ast.Node {
	at := n.Location()
	switch n := n.(type) {
	case *ast.NilNode:
		return &ast.NilNode{}
	case *ast.BoolNode:
		return &ast.BoolNode{Value: n.Value}
	case *ast.StringNode:
		return &ast.StringNode{Value: n.Value}
	case *ast.IntegerNode:
		return &ast.ConstantNode{Value: int64(n.Value)}
	case *ast.FloatNode:
		return &ast.ConstantNode{Value: decimal.NewFromFloat(n.Value)}
	case *ast.ConstantNode:
		return &ast.ConstantNode{Value: n.Value}
	case *ast.IdentifierNode:
		return callOf(at, fnPath, &ast.ConstantNode{Value: chain(n)})
	case *ast.PointerNode:
		p := &ast.PointerNode{Name: n.Name}
		if n.Name == "index" {
			return callOf(at, fnInteger, p)
		}
		return p
	case *ast.UnaryNode:
		switch n.Operator {
		case "not", "!":
			return &ast.UnaryNode{Operator: "not", Node: holds(n.Node)}
		case "-":
			return callOf(at, "-", &ast.ConstantNode{Value: int64(0)}, rewrite(n.Node))
		}
		return callOf(at, "+", &ast.ConstantNode{Value: int64(0)}, rewrite(n.Node))
	case *ast.BinaryNode:
		return rewriteBinary(n)
	case *ast.ChainNode:
		return rewrite(n.Node)
	case *ast.MemberNode:
		if path := chain(n); path != nil {
			return callOf(at, fnPath, &ast.ConstantNode{Value: path})
		}
		return callOf(at, fnMember, rewrite(n.Node), rewrite(n.Property))
	case *ast.SliceNode:
		from, to := ast.Node(&ast.NilNode{}), ast.Node(&ast.NilNode{})
		if n.From != nil {
			from = rewrite(n.From)
		}
		if n.To != nil {
			to = rewrite(n.To)
		}
		return callOf(at, fnSlice, rewrite(n.Node), from, to)
	case *ast.CallNode:
		return callOf(at, strings.TrimSuffix(n.Callee.(*ast.IdentifierNode).Value, called), rewriteAll(n.Arguments)...)
	case *ast.BuiltinNode:
		return rewritePredicate(n)
	case *ast.ConditionalNode:
		return &ast.ConditionalNode{Cond: holds(n.Cond), Exp1: rewrite(n.Exp1), Exp2: rewrite(n.Exp2)}
	case *ast.ArrayNode:
		return &ast.ArrayNode{Nodes: rewriteAll(n.Nodes)}
	case *ast.MapNode:
		return &ast.MapNode{Pairs: rewriteAll(n.Pairs)}
	case *ast.PairNode:
		return &ast.PairNode{Key: callOf(at, fnKey, rewrite(n.Key)), Value: rewrite(n.Value)}
	}
	panic("mappers: a node that the checks let through has no meaning")
}

func rewriteAll(nodes []ast.Node) []ast.Node {
	out := make([]ast.Node, len(nodes))
	for i, n := range nodes {
		out[i] = rewrite(n)
	}
	return out
}

func rewriteBinary(n *ast.BinaryNode) ast.Node {
	switch n.Operator {
	case "and", "&&", "or", "||":
		out := &ast.BinaryNode{Operator: n.Operator, Left: holds(n.Left), Right: holds(n.Right)}
		out.SetType(reflect.TypeFor[bool]())
		return out
	case "??":
		return &ast.BinaryNode{Operator: "??", Left: callOf(n.Location(), fnPresent, rewrite(n.Left)), Right: rewrite(n.Right)}
	case "!=":
		return &ast.UnaryNode{Operator: "not", Node: callOf(n.Location(), "==", rewrite(n.Left), rewrite(n.Right))}
	case fnMatches:
		pattern := regexp.MustCompile(n.Right.(*ast.StringNode).Value)
		return callOf(n.Location(), fnMatches, rewrite(n.Left), &ast.ConstantNode{Value: pattern})
	}
	return callOf(n.Location(), n.Operator, rewrite(n.Left), rewrite(n.Right))
}

func rewritePredicate(n *ast.BuiltinNode) ast.Node {
	list := callOf(n.Arguments[0].Location(), fnList, rewrite(n.Arguments[0]))
	body := n.Arguments[1].(*ast.PredicateNode).Node
	predicate := &ast.PredicateNode{}
	if n.Name == "map" {
		predicate.Node = rewrite(body)
	} else {
		predicate.Node = holds(body)
	}
	out := &ast.BuiltinNode{Name: n.Name, Arguments: []ast.Node{list, predicate}}
	out.SetLocation(n.Location())
	if n.Name == "count" {
		return callOf(n.Location(), fnInteger, out)
	}
	return out
}

// holds makes a condition of n.
func holds(n ast.Node) ast.Node {
	return callOf(n.Location(), fnHolds, rewrite(n))
}

func callOf(at file.Location, name string, args ...ast.Node) ast.Node {
	call := &ast.CallNode{
		Callee:    &ast.IdentifierNode{Value: name},
		Arguments: append([]ast.Node{&ast.IdentifierNode{Value: "$env"}}, args...),
	}
	call.SetLocation(at)
	return call
}
