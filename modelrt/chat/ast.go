package chat

// expr is an expression, stmt a part of a template. Both know how they are evaluated: eval.go and exec.go.
type (
	expr interface {
		eval(e *run, s *scope) value
	}
	stmt interface {
		exec(e *run, s *scope) flow
	}
)

// flow says how a statement ended.
type flow uint8

const (
	flowNext flow = iota
	flowBreak
	flowContinue
)

type (
	literal   struct{ v value }
	nameExpr  struct{ name string }
	listExpr  struct{ items []expr }
	tupleExpr struct{ items []expr }
	dictExpr  struct{ keys, values []expr }
	attrExpr  struct {
		of   expr
		name string
		line int
	}
	itemExpr struct {
		of, key expr
		line    int
	}
	sliceExpr struct {
		of             expr
		from, to, step expr // nil: absent
		line           int
	}
	callExpr struct {
		of   expr
		args arguments
		line int
	}
	filterExpr struct {
		of   expr // nil: the body of a filter block
		name string
		args arguments
		line int
	}
	testExpr struct {
		of     expr
		name   string
		args   arguments
		negate bool
		line   int
	}
	unaryExpr struct {
		op   string
		of   expr
		line int
	}
	binaryExpr struct {
		op          string
		left, right expr
		line        int
	}
	compareExpr struct {
		first expr
		ops   []string
		rest  []expr
		line  int
	}
	condExpr struct {
		test, then, otherwise expr // otherwise may be nil
	}
)

type arguments struct {
	args  []expr
	names []string // of the keyword arguments
	named []expr
}

type (
	textStmt   struct{ text string }
	outputStmt struct{ of expr }
	ifStmt     struct {
		test            expr
		then, otherwise []stmt
	}
	forStmt struct {
		target          target
		over, filter    expr // filter may be nil
		body, otherwise []stmt
		line            int
	}
	setStmt struct {
		target target
		to     expr   // nil: the block
		body   []stmt // of a block
		filter *filterExpr
		line   int
	}
	macroStmt struct {
		name     string
		params   []string
		defaults []expr // for the last params
		body     []stmt
	}
	filterStmt struct {
		filter *filterExpr
		body   []stmt
	}
	withStmt struct {
		targets []target
		values  []expr
		body    []stmt
		line    int
	}
	blockStmt struct{ body []stmt } // generation: no meaning when rendering
	jumpStmt  struct{ to flow }
)

// target is what set, for and with assign to: names, or an attribute of a namespace.
type target struct {
	names []string // several: unpacked
	attr  string   // of names[0], where it is not empty
}
