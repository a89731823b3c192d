package chat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// testCase is a line for testdata/oracle.py.
type testCase struct {
	Template string                     `json:"template"`
	Messages []map[string]any           `json:"messages"`
	Add      bool                       `json:"add_generation_prompt"`
	BOS      string                     `json:"bos"`
	EOS      string                     `json:"eos"`
	Extra    map[string]json.RawMessage `json:"extra"`
	in       []Message
}

func said(role, text string) Message       { return Message{Role: role, Text: text} }
func shown(role string, p ...Part) Message { return Message{Role: role, Parts: p} }
func words(text string) Part               { return Part{Text: text} }
func image() Part                          { return Part{Image: true} }
func extra(raw string) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		panic(err)
	}
	return m
}

var chats = [][]Message{
	{},
	{said("user", "Describe the film.")},
	{said("system", "You are careful."), said("user", " Is there an effusion? \n")},
	{said("user", "a"), said("assistant", "b"), said("user", "c")},
	{said("system", " s "), said("user", "a\n\nb"), said("assistant", "<think>\nhm\n</think>\n\nNo effusion."), said("user", "Größe? 肺 🫁 'quoted' \"double\" {{ 1 + 1 }} {% raw %} \\n")},
	{said("user", "a"), said("user", "b")},
	{said("assistant", "first")},
	{said("tool", "{\"a\": 1}"), said("user", "<tool_response>x</tool_response>"), said("assistant", "")},
	{shown("user", image(), words("What is seen?"))},
	{shown("user", words("Before "), image(), words(" between "), image(), words("after")), shown("assistant", words("Two films.")), shown("user", words("And now?"))},
	{shown("system", words("You are careful.")), shown("user", image(), image(), image())},
	{said("user", ""), said("assistant", "\n\tleading and trailing \u00a0\u2003\n")},
	{said("user", "1"), said("assistant", "2"), said("user", "3"), said("assistant", "4"), said("user", "5"), said("assistant", "6"), said("user", "7")},
}

// snippets are templates of an expression or two.
var snippets = []string{
	"{{ 1 + 2 * 3 - 4 // 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7 % -3 }} {{ 1.5 + 1 }} {{ 1e3 }} {{ 10 / 5 }} {{ 0.1 + 0.2 }} {{ 1e20 }} {{ 3 // 0.5 }}",
	"{{ true }} {{ false }} {{ none }} {{ True and 3 }} {{ 0 or 'x' }} {{ not 1 }} {{ [] or {} }} {{ '' and 1 }} {{ x }}|{{ x is defined }}{{ y is undefined }}",
	"{{ [1, 'a', \"it's\", 'say \"x\"', none, true, 1.0, [2], (3,), {'k': 'v'}] }} {{ 'a\\nb\\t\\\\' }} {{ ['a\\nb\\u00e9\\x01'] }} {{ ('a', 'b') }} {{ () }}",
	"{{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ none == false }} {{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ (1,) == [1] }}",
	"{{ 'a' in 'cat' }} {{ 'x' not in ['x'] }} {{ 'k' in {'k': 1} }} {{ 2 in [1, 2] }} {{ not 'a' in 'b' }} {{ 'b' is in 'abc' }}",
	"{{ 'a' ~ 1 ~ none ~ 2.5 }} {{ 'ab' * 3 }} {{ 3 * 'x' }} {{ [1] * 2 }} {{ [1] + [2] }} {{ 'a' + 'b' 'c' }} {{ 'x' * -1 }}|",
	"{{ 'abcdef'[1:3] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ [1,2,3,4][::2] }} {{ [1,2,3][-1] }} {{ 'äöü'[1] }} {{ [1,2,3][5] }}| {{ [1,2,3][5:] }} {{ 'abc'[::-2] }} {{ 'abc'[2:0:-1] }} {{ 'abc'[:-1] }} {{ (1,2,3)[1:] }} {{ 'abc'[none:2] }}",
	"{{ {'a': {'b': [10, 20]}}.a.b[1] }} {{ {'a': 1}['a'] }} {{ {'a': 1}.b }}| {{ {'items': 1}['items'] }} {{ {'a': 1}.get('z', 5) }} {{ {'a': 1}.get('z') }} {{ {'b': 1, 'a': 2}.items() | list }} {{ {'b': 1, 'a': 2}.keys() | list }} {{ {'b': 1}.values() | list }}",
	"{{ ' a b '.strip() }}| {{ 'xxaxx'.strip('x') }} {{ ' a '.lstrip() }}| {{ ' a '.rstrip() }}| {{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }}",
	"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ 'hello wORLD'.title() }} {{ 'hELLO'.capitalize() }} {{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'äbcb'.rfind('b') }} {{ 'a-b'.join(['1', '2']) }} {{ 'aab'.count('a') }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ ''.isspace() }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'abc'.index('b') }} {{ 'AB'.isupper() }} {{ 'prefix'.removeprefix('pre') }}",
	"{{ ' x ' | trim }}| {{ 'xax' | trim('x') }} {{ 'abc' | upper | lower | capitalize }} {{ 'a b' | title }} {{ [3,1,2] | sort }} {{ [3,1,2] | sort(reverse=true) }} {{ ['b','A','c'] | sort }} {{ ['b','A'] | sort(case_sensitive=true) }} {{ [1,2,3] | first }} {{ [1,2,3] | last }} {{ 'abc' | first }} {{ [] | first }}| {{ [1,2] | length }} {{ 'äb' | count }} {{ [1,2] | join(', ') }} {{ [1,2] | join }}",
	"{{ x | default('d') }} {{ '' | default('d') }} {{ '' | d('e', true) }} {{ none | default('n') }} {{ '7' | int }} {{ 'z' | int }} {{ 'z' | int(9) }} {{ '3.9' | int }} {{ 3.9 | int }} {{ '2.5' | float }} {{ 'q' | float }} {{ -3 | abs }} {{ 2.5 | round }} {{ 2.567 | round(2) }} {{ 3 | string ~ 'x' }} {{ 'abc' | list }} {{ 'abc' | reverse }} {{ [1,2] | reverse | list }}",
	"{{ [{'n': 'a', 'v': 2}, {'n': 'b', 'v': 1}] | map(attribute='n') | join(',') }} {{ ['a', 'b'] | map('upper') | list }} {{ [1, 2, 3, 4] | select('odd') | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ [{'v': 2}, {'v': 1}] | sort(attribute='v') }} {{ [{'a': 1}, {'a': 2}] | selectattr('a', 'gt', 1) | list }} {{ [{'a': 1}, {'b': 2}] | rejectattr('a', 'defined') | list }} {{ [{'a': {'b': 3}}] | map(attribute='a.b') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=7) | list }}",
	"{{ [1, 2, 3] | sum }} {{ [{'a': 1}, {'a': 2}] | sum(attribute='a') }} {{ [3, 1] | min }} {{ [3, 1] | max }} {{ ['b', 'A'] | min }} {{ [1, 1, 2] | unique | list }} {{ ['a', 'A'] | unique | list }} {{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1, 'a': 2} | items | list }} {{ 'a\\nb\\n\\nc' | indent }}| {{ 'a\\nb' | indent(2, true) }} {{ '<a href=\"x\">&\\'' | e }} {{ 'a' | safe }} {{ 'aXb' | replace('X', 'y') }}",
	"{{ {'a': [1, 2.0, true, none, 'x\"\\n\\u00e9<>&\\''], 'b': {}, 'c': []} | tojson }} {{ {'b': 1, 'a': [1]} | tojson(indent=2) }} {{ 'é🫁' | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ '\\x1f\\x7f' | tojson }}",
	"{% for i in range(3) %}{{ i }}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.length }};{% endfor %}{% for i in [] %}x{% else %}none{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }} {% endfor %}{% for i in range(10) if i is even %}{{ loop.index }}:{{ i }} {% endfor %}",
	"{% for i in range(10) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {% for i in range(5, 0, -2) %}{{ i }}{% endfor %} {% for a in 'xyz' %}{{ loop.previtem }}{{ a }}{{ loop.nextitem }}{{ loop.cycle('-', '+') }}{% endfor %} {% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
	"{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }} {% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% if true %}{% set y = 5 %}{% endif %}{{ y }} {% set z %}block {{ y }}{% endset %}{{ z | upper }} {% set w | upper | trim %} inner {% endset %}{{ w }}|",
	"{% macro m(a, b='d', c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(a=4, b=5) }}{{ m() }} {% macro rec(n) %}{{ n }}{% if n > 0 %}{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(3) }} {% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}| {% filter upper | trim %} shout {% endfilter %}|",
	"  {% if true %}\n  yes  \n  {% endif %}\n\n{{ 1 }}\n  {%- if true -%}\n  tight  \n  {%- endif -%}\n after\n{# gone #}\n  {# also #}  \nend\n\n",
	"a\n{% if true %}\nb\n{% endif %}\nc\n  {%+ if true %}\n  d{% endif +%}\n  e {% raw %}{{ not }} {% this %}\n{% endraw %}\nf {{- ' g ' -}} h\n\t {% set x = 1 %}\t\ni",
	"{% if false %}a{% elif 0 %}b{% elif 'x' %}c{% else %}d{% endif %}{{ 'a' if false }}|{{ 'a' if false else 'b' if false else 'c' }} {{ (1 if true else 2) + 1 }} {{ 1 is odd and 2 is even }} {{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ [] is sequence }} {{ 1 is number }} {{ 1.0 is float }} {{ 1 is integer }} {{ true is boolean }} {{ true is true }} {{ none is none }} {{ none is not none }} {{ 1 is eq 1 }} {{ 2 is gt(1) }} {{ 'A' is upper }} {{ 'a' is lower }} {{ true is integer }} {{ true is number }} {{ m is callable }}",
	"{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %p %A %j') }} {{ strftime_now('%-d %-H 100%%') }} {{ range(3) | list }} {{ dict(a=1) }} {{ namespace(a=1).a }} {{ dict({'z': 1}, a=2) }}",
	"{% if 'upper' is filter and 'nope' is not filter %}{% if false %}{{ 1 | nope }}{{ 1 is nope }}{% endif %}ok{% endif %}", "{% if true %}{{ 1 | nope }}{% endif %}",
	"{{ raise_exception('no') }}", "{{ x.y }}", "{{ x.y.z }}", "{{ 1 + 'a' }}", "{{ 'a' + 1 }}", "{{ [] + 'a' }}", "{{ 1 / 0 }}", "{{ x + 1 }}", "{{ x() }}", "{{ 'a'.nope() }}", "{{ {'a': 1}.update({'b': 2}) }}", "{{ [1].append(2) }}", "{{ none.x }}|", "{{ none.x.y }}",
	"{% for a, b in [1] %}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{{ range(1000000) }}", "{{ 'a' < 1 }}", "{{ 5 in 5 }}", "{{ [][0] }}|", "{{ ''[0] }}|", "{{ 'a' | nofilter }}", "{{ 1 is notest }}", "{% set a.b = 1 %}", "{{ 'a'.split('') }}", "{% for i in x %}a{% else %}b{% endfor %}", "{{ x ~ 'a' }}", "{{ [x] }}", "{{ x == y }}", "{{ x | length }}", "{{ x | list }}", "{{ x | join(',') }}|",
	"{{ ''.__class__.__mro__ }}", "{{ messages.__class__ }}", "{{ 'a\\'b' ~ \"c\\\"d\" ~ 'é\\u00e9\\x41\\101' }}", "{{ '\\q' }}", "{{ 1_000 }} {{ 1.5e2 }} {{ a.0 }}", "{{ [1,2,].0 }}{{ {'a':1,}.a }}", "{{ (1) }}{{ (1,) }}{{ 1, 2 }}", "{% set s = 'x' %}{{ s.upper().lower()[0] | upper }}{{ -1 | abs }}{{ 2 ** 3 ** 2 }}{{ -2 ** 2 }}", "{{- 1 -}}\n\n{{ 2 }}", "{{ +1 }}{{ - 1 }}", "{{ 'a'\n~\n'b' }}", "{{ not true == false }}", "{{ 1 if x is defined and x else 2 }}", "\n\n{{ 1 }}\n", "{{ 'x' }}\n\n", "", "\n", "plain {text} % }} %} #}", "{%if true%}x{%endif%}", "{{'a'}}{{'b'}}", "{{ {'a': 1,\n 'b': [1,\n2]} }}", "{{ \"a\" \"b\" }}", "{{ 'tab\tin' }}",
}

// wrong are templates that neither we nor Jinja compile.
var wrong = []string{
	"{{ 1 +", "{{ }}", "{% if %}", "{% if true %}", "{% endif %}", "{% for x %}{% endfor %}", "{{ 'a }}", "{# open", "{% nope %}", "{{ a b }}", "{% set %}", "{% set 1 = 2 %}", "{{ [1, 2 }}", "{{ {1: 2 }", "{% macro %}{% endmacro %}",
	"{% for x in y %}{% endif %}", "{{ 1 ** }}", "{{ a. }}", "{{ a | }}", "{{ a is }}", "{% else %}", "{{ @ }}", "{% break %}", "{% set none = 1 %}", "{{ f(a=1, 2) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% if true %}{% else %}{% else %}{% endif %}",
}

func templates(t testing.TB) map[string]string {
	t.Helper()
	names, err := filepath.Glob("testdata/templates/*.jinja")
	if err != nil || len(names) < 8 {
		t.Fatalf("templates: %v, %v", names, err)
	}
	list := map[string]string{}
	for _, n := range names {
		raw, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		list[filepath.Base(n)] = string(raw)
	}
	return list
}

// overChats makes the cases of one template.
func overChats(template string) (list []testCase) {
	for i, chat := range chats {
		c := testCase{Template: template, Add: i%2 == 1, BOS: "<s>", EOS: "</s>", in: chat, Extra: map[string]json.RawMessage{}, Messages: []map[string]any{}}
		switch i % 4 {
		case 1:
			c.Extra = extra(`{"enable_thinking":false,"add_vision_id":true}`)
		case 2:
			c.Extra = extra(`{"tools":[{"type":"function","function":{"name":"measure","parameters":{"z":1,"a":[1.5,null,true,"é"]}}}],"date_string":"1 May 2026"}`)
		}
		for _, m := range chat {
			var content any = m.Text
			if m.Parts != nil {
				type part struct {
					Type string  `json:"type"`
					Text *string `json:"text,omitempty"`
				}
				parts := []part{}
				for _, p := range m.Parts {
					if p.Image {
						parts = append(parts, part{Type: "image"})
					} else {
						parts = append(parts, part{"text", &p.Text})
					}
				}
				content = parts
			}
			c.Messages = append(c.Messages, map[string]any{"role": m.Role, "content": content})
		}
		list = append(list, c)
	}
	return list
}
