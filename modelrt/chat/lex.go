package chat

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

type kind uint8

const (
	kindText  kind = iota // between tags
	kindBegin             // {% or {{: text tells which
	kindEnd               // %} or }}
	kindName
	kindString
	kindInt
	kindFloat
	kindOp
	kindEOF
)

type lexeme struct {
	kind kind
	text string
	line int
}

func (l lexeme) String() string {
	if l.kind == kindEOF {
		return "the end of the template"
	}
	return fmt.Sprintf("%.40q", l.text)
}

// lexer cuts a template as Jinja does with trim_blocks and lstrip_blocks, which is how chat templates are read.
type lexer struct {
	rest string
	line int
	out  []lexeme
	bare bool // the next text begins at the beginning of a line
}

func syntax(line int, format string, args ...any) error {
	return fmt.Errorf("%w: chat template, line %d: %s", pipeline.ErrInvalid, line, fmt.Sprintf(format, args...))
}

func unsupported(line int, format string, args ...any) error {
	return fmt.Errorf("%w: chat template, line %d: %s", pipeline.ErrUnsupported, line, fmt.Sprintf(format, args...))
}

func lex(source string) ([]lexeme, error) {
	source = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
	l := &lexer{rest: strings.TrimSuffix(source, "\n"), line: 1, bare: true}
	for l.rest != "" {
		at := l.tag()
		if at < 0 {
			l.text(l.rest, "")
			break
		}
		text, open := l.rest[:at], l.rest[at:at+2]
		l.rest = l.rest[at+2:]
		sign := ""
		if l.rest != "" && strings.ContainsRune("-+", rune(l.rest[0])) {
			sign, l.rest = l.rest[:1], l.rest[1:]
		}
		if open == "{{" && sign == "+" { // there it is a plus
			sign, l.rest = "", "+"+l.rest
		}
		switch {
		case sign == "-":
			l.text(strings.TrimRightFunc(text, unicode.IsSpace), text)
		case open != "{{" && sign == "":
			l.text(lstrip(text, l.bare), text)
		default:
			l.text(text, "")
		}
		if err := l.inside(open); err != nil {
			return nil, err
		}
	}
	return append(l.out, lexeme{kindEOF, "", l.line}), nil
}

// tag finds the first {{, {% or {#.
func (l *lexer) tag() int {
	for i := 0; i+1 < len(l.rest); i++ {
		if l.rest[i] == '{' && strings.IndexByte("{%#", l.rest[i+1]) >= 0 {
			return i
		}
	}
	return -1
}

// lstrip takes blanks off the end of text, back to the beginning of its line. start says that text begins where a line begins.
func lstrip(text string, start bool) string {
	cut := strings.TrimRightFunc(text, func(r rune) bool { return r != '\n' && unicode.IsSpace(r) })
	if cut == "" && start || strings.HasSuffix(cut, "\n") {
		return cut
	}
	return text
}

// text emits text; full, where it is not empty, is what it was before it was stripped, for counting lines.
func (l *lexer) text(text, full string) {
	if full == "" {
		full = text
	}
	if text != "" {
		l.out = append(l.out, lexeme{kindText, text, l.line})
	}
	l.line += strings.Count(full, "\n")
	l.bare = false
}

// inside reads a tag after its opening.
func (l *lexer) inside(open string) error {
	line := l.line
	if open == "{#" {
		end := strings.Index(l.rest, "#}")
		if end < 0 {
			return syntax(line, "a comment without end")
		}
		sign := ""
		if end > 0 && strings.ContainsRune("-+", rune(l.rest[end-1])) {
			sign = l.rest[end-1 : end]
		}
		l.line += strings.Count(l.rest[:end], "\n")
		l.rest = l.rest[end+2:]
		l.after(sign, true)
		return nil
	}
	shut := "}}"
	if open == "{%" {
		shut = "%}"
		if done, err := l.raw(); done || err != nil {
			return err
		}
	}
	l.out = append(l.out, lexeme{kindBegin, open, line})
	depth := 0
	for {
		l.blanks()
		if l.rest == "" {
			return syntax(line, "%s without %s", open, shut)
		}
		for _, sign := range []string{"", "-", "+"} {
			if depth == 0 && strings.HasPrefix(l.rest, sign+shut) && !(shut == "}}" && sign == "+") {
				l.rest = l.rest[len(sign)+2:]
				l.out = append(l.out, lexeme{kindEnd, shut, l.line})
				l.after(sign, shut == "%}")
				return nil
			}
		}
		t, err := l.token()
		if err != nil {
			return err
		}
		switch t.text {
		case "(", "[", "{":
			if t.kind == kindOp {
				depth++
			}
		case ")", "]", "}":
			if t.kind == kindOp {
				depth--
			}
		}
		l.out = append(l.out, t)
	}
}

// after takes white space after a tag away: all of it, or (blocks) the end of the line.
func (l *lexer) after(sign string, block bool) {
	switch {
	case sign == "-":
		cut := strings.TrimLeftFunc(l.rest, unicode.IsSpace)
		gone := l.rest[:len(l.rest)-len(cut)]
		l.line += strings.Count(gone, "\n")
		l.bare = strings.HasSuffix(gone, "\n")
		l.rest = cut
	case block && sign == "" && strings.HasPrefix(l.rest, "\n"):
		l.rest = l.rest[1:]
		l.line++
		l.bare = true
	default:
		l.bare = false
	}
}

// raw emits what is between {% raw %} and {% endraw %}.
func (l *lexer) raw() (bool, error) {
	inner := strings.TrimLeft(l.rest, " \t\n")
	if !strings.HasPrefix(inner, "raw") {
		return false, nil
	}
	inner = strings.TrimLeft(inner[3:], " \t\n")
	if !strings.HasPrefix(inner, "%}") {
		return false, nil
	}
	inner = inner[2:]
	for from := 0; ; {
		at := strings.Index(inner[from:], "{%")
		if at < 0 {
			return false, syntax(l.line, "raw without endraw")
		}
		at += from
		tail := strings.TrimLeft(inner[at+2:], " \t\n")
		if after, ok := strings.CutPrefix(tail, "endraw"); ok {
			if after, ok = strings.CutPrefix(strings.TrimLeft(after, " \t\n"), "%}"); ok {
				l.text(lstrip(inner[:at], false), inner[:at])
				l.rest = after
				l.after("", true)
				return true, nil
			}
		}
		from = at + 2
	}
}

func (l *lexer) blanks() {
	cut := strings.TrimLeft(l.rest, " \t\r\n\v\f")
	l.line += strings.Count(l.rest[:len(l.rest)-len(cut)], "\n")
	l.rest = cut
}

var operators = []string{"//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"}

func (l *lexer) token() (lexeme, error) {
	c := l.rest[0]
	switch {
	case c == '\'' || c == '"':
		return l.quoted(c)
	case c >= '0' && c <= '9':
		return l.number(), nil
	}
	if r, _ := utf8.DecodeRuneInString(l.rest); r == '_' || unicode.IsLetter(r) {
		end := strings.IndexFunc(l.rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if end < 0 {
			end = len(l.rest)
		}
		return l.take(kindName, end), nil
	}
	for _, op := range operators {
		if strings.HasPrefix(l.rest, op) {
			return l.take(kindOp, len(op)), nil
		}
	}
	return lexeme{}, syntax(l.line, "%.8q within a tag", l.rest)
}

func (l *lexer) take(k kind, n int) lexeme {
	t := lexeme{k, l.rest[:n], l.line}
	l.rest = l.rest[n:]
	return t
}

func (l *lexer) number() lexeme {
	digits := func(i int) int {
		for i < len(l.rest) && (l.rest[i] >= '0' && l.rest[i] <= '9' || l.rest[i] == '_') {
			i++
		}
		return i
	}
	n := digits(0)
	k := kindInt
	if n+1 < len(l.rest) && l.rest[n] == '.' && l.rest[n+1] >= '0' && l.rest[n+1] <= '9' {
		k, n = kindFloat, digits(n+1)
	}
	if n < len(l.rest) && (l.rest[n] == 'e' || l.rest[n] == 'E') {
		m := n + 1
		if m < len(l.rest) && (l.rest[m] == '+' || l.rest[m] == '-') {
			m++
		}
		if end := digits(m); end > m {
			k, n = kindFloat, end
		}
	}
	t := l.take(k, n)
	t.text = strings.ReplaceAll(t.text, "_", "")
	return t
}

// quoted reads a string literal with Python's escapes.
func (l *lexer) quoted(quote byte) (lexeme, error) {
	var out strings.Builder
	for i := 1; i < len(l.rest); {
		c := l.rest[i]
		switch {
		case c == quote:
			t := lexeme{kindString, out.String(), l.line}
			l.line += strings.Count(l.rest[:i], "\n")
			l.rest = l.rest[i+1:]
			return t, nil
		case c == '\\' && i+1 < len(l.rest):
			n, err := escape(l.rest[i+1:], &out)
			if err != nil {
				return lexeme{}, syntax(l.line, "%v", err)
			}
			i += 1 + n
		default:
			out.WriteByte(c)
			i++
		}
	}
	return lexeme{}, syntax(l.line, "a string without end")
}

// escape writes what the escape at the beginning of s stands for, and returns its length.
func escape(s string, out *strings.Builder) (int, error) {
	const plain, means = "\\'\"abfnrtv", "\\'\"\a\b\f\n\r\t\v"
	if i := strings.IndexByte(plain, s[0]); i >= 0 {
		out.WriteByte(means[i])
		return 1, nil
	}
	if s[0] == '\n' {
		return 1, nil
	}
	length, ok := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]
	if !ok {
		if s[0] >= '0' && s[0] <= '7' {
			n, r := 0, rune(0)
			for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
				r = r*8 + rune(s[n]-'0')
				n++
			}
			out.WriteRune(r)
			return n, nil
		}
		out.WriteByte('\\') // an escape that is none stays
		return 0, nil
	}
	if len(s) <= length {
		return 0, fmt.Errorf(`\%c is cut off`, s[0])
	}
	r := rune(0)
	for _, c := range []byte(strings.ToLower(s[1 : 1+length])) {
		d := strings.IndexByte("0123456789abcdef", c)
		if d < 0 || r > unicode.MaxRune {
			return 0, fmt.Errorf(`\%c without %d hexadecimal digits`, s[0], length)
		}
		r = r*16 + rune(d)
	}
	if !utf8.ValidRune(r) {
		return 0, fmt.Errorf(`\%.*s is no character`, length+1, s)
	}
	out.WriteRune(r)
	return 1 + length, nil
}
