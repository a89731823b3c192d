package archive

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

const (
	maxUIDs      = 500 // in one list
	maxWildcards = 8   // in one pattern: each multiplies the work
	maxPattern   = 512 // bytes
	maxKeys      = 100 // in one query
)

// clause is a condition in SQL.
type clause struct {
	sql  string
	args []any
	// narrow: few rows are expected to match, and an index finds them.
	narrow bool
}

// or joins conditions of which one must hold.
func or(all []clause) clause {
	if len(all) == 1 {
		return all[0]
	}
	var sql []string
	out := clause{narrow: len(all) > 0}
	for _, c := range all {
		sql, out.args, out.narrow = append(sql, c.sql), append(out.args, c.args...), out.narrow && c.narrow
	}
	out.sql = strings.Join(sql, " OR ")
	return out
}

// condition turns a value as DICOM writes it into SQL (PS3.4 section C.2.2.2). The error tells what is wrong without quoting the value.
func (k key) condition(value string) (clause, error) {
	switch k.kind {
	case kindUID:
		uids, err := uidList(value)
		return in(k.columns[0], uids), err
	case kindUIDs:
		uids, err := uidList(value)
		var all []clause
		for _, u := range uids {
			all = append(all, clause{sql: `instr('\' || ` + k.columns[0] + ` || '\', ?) > 0`, args: []any{`\` + u + `\`}})
		}
		return or(all), err
	case kindDate:
		r, err := dateRange(value)
		return r.condition(k.columns[0]), err
	case kindTime:
		r, err := timeRange(value)
		return r.condition(k.columns[0]), err
	case kindNumber:
		n, err := strconv.Atoi(value)
		if err != nil {
			return clause{}, errors.New("the value is not a whole number")
		}
		return clause{sql: k.columns[0] + " = ?", args: []any{strconv.Itoa(n)}}, nil
	case kindName:
		return nameCondition(k.columns, value)
	case kindList:
		return listCondition(k.columns[0], value)
	}
	c, err := pattern(k.columns[0], value)
	c.narrow = c.narrow && k.indexed
	return c, err
}

// nameCondition matches any component group, or each that the value has where it has several (PS3.5 section 6.2.1.1).
func nameCondition(columns []string, value string) (clause, error) {
	var all []clause
	if strings.Contains(value, "=") {
		for i, g := range foldName(value) {
			if g == "" || g == "*" {
				continue
			}
			c, err := pattern(columns[i], g)
			if err != nil {
				return clause{}, err
			}
			all = append(all, clause{sql: "(" + c.sql + ")", args: c.args})
		}
		if len(all) == 0 {
			return clause{sql: "1 = 1"}, nil
		}
		out := clause{}
		for i, c := range all {
			if i > 0 {
				out.sql += " AND "
			}
			out.sql, out.args = out.sql+c.sql, append(out.args, c.args...)
		}
		return out, nil
	}
	value = fold(value)
	for _, c := range columns {
		one, err := pattern(c, value)
		if err != nil {
			return clause{}, err
		}
		all = append(all, one)
	}
	out := or(all)
	out.narrow = false
	return out, nil
}

// listCondition matches one of several values with commas or backslashes between.
func listCondition(column, value string) (clause, error) {
	patterns, err := listed(value)
	if err != nil {
		return clause{}, err
	}
	var all []clause
	for _, p := range patterns {
		c, err := pattern(column, p)
		if err != nil {
			return clause{}, err
		}
		all = append(all, clause{sql: "(" + c.sql + ")", args: c.args})
	}
	return or(all), nil
}

func listed(value string) ([]string, error) {
	out := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '\\' })
	if len(out) == 0 || len(out) > 64 {
		return nil, errors.New("the value is not a list of 1 to 64 values")
	}
	for i := range out {
		if out[i] = strings.TrimSpace(out[i]); strings.Count(out[i], "*") > maxWildcards || len(out[i]) > 64 {
			return nil, fmt.Errorf("a value has more than 64 bytes or %d wildcards", maxWildcards)
		}
	}
	return out, nil
}

func uidList(value string) ([]string, error) {
	uids := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '\\' })
	if len(uids) == 0 || len(uids) > maxUIDs {
		return nil, fmt.Errorf("the value is not a list of 1 to %d UIDs", maxUIDs)
	}
	for i, u := range uids {
		uids[i] = strings.TrimRight(strings.TrimSpace(u), "\x00")
		if !pipeline.ValidUID(uids[i]) {
			return nil, errors.New("the value is not a list of UIDs")
		}
	}
	return uids, nil
}

func in(column string, values []string) clause {
	if len(values) == 0 {
		return clause{}
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return clause{sql: column + " IN (?" + strings.Repeat(",?", len(args)-1) + ")", args: args, narrow: true}
}

// span is a range of dates or times as they are matched; an empty end is open. '~' sorts behind digits and point: an end of lower
// precision takes in all that begins with it.
type span struct{ low, high string }

// condition matches a span. An attribute without value matches none.
func (s span) condition(column string) clause {
	switch {
	case s.low == "":
		return clause{sql: column + " != '' AND " + column + " <= ?", args: []any{s.high + "~"}}
	case s.high == "":
		return clause{sql: column + " >= ?", args: []any{s.low}}
	}
	return clause{sql: column + " BETWEEN ? AND ?", args: []any{s.low, s.high + "~"}}
}

// cutRange reads one value, a-b, a- or -b.
func cutRange(value, what string, valid func(string) bool) (span, bool, error) {
	low, high, isRange := strings.Cut(value, "-")
	low, high = strings.TrimSpace(low), strings.TrimSpace(high)
	if !isRange {
		high = low
	}
	if low == "" && high == "" || low != "" && !valid(low) || high != "" && !valid(high) {
		return span{}, false, errors.New("the value is not " + what)
	}
	return span{low, high}, isRange, nil
}

func dateRange(value string) (span, error) {
	s, _, err := cutRange(value, "a date (YYYYMMDD) or a range of dates", func(s string) bool { return len(s) == 8 && digits(s) })
	return s, err
}

func timeRange(value string) (span, error) {
	s, _, err := cutRange(value, "a time (HHMMSS) or a range of times", isTime)
	if strings.Contains(s.low, ".") {
		s.low = timeKey(s.low)
	}
	if strings.Contains(s.high, ".") {
		s.high = timeKey(s.high)
	}
	return s, err
}

// moments matches a date and a time together (PS3.4 section C.2.2.2.5): both ranges are one, from the first date at the first time to
// the last date at the last time. ok is false where they are to be matched each by itself.
func moments(dateColumn, timeColumn, date, time string) (c clause, ok bool) {
	d, dates, err1 := cutRange(date, "", func(s string) bool { return len(s) == 8 && digits(s) })
	t, err2 := timeRange(time)
	if err1 != nil || err2 != nil || !dates || !strings.Contains(time, "-") {
		return clause{}, false
	}
	c = d.condition(dateColumn)
	if d.low != "" && t.low != "" {
		c.sql += " AND (" + dateColumn + " != ? OR " + timeColumn + " >= ?)"
		c.args = append(c.args, d.low, t.low)
	}
	if d.high != "" && t.high != "" {
		c.sql += " AND (" + dateColumn + " != ? OR " + timeColumn + " != '' AND " + timeColumn + " <= ?)"
		c.args = append(c.args, d.high, t.high+"~")
	}
	return c, true
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func isTime(s string) bool {
	whole, fraction, pointed := strings.Cut(s, ".")
	return digits(whole) && digits(fraction) && (len(whole) == 2 || len(whole) == 4 || len(whole) == 6) &&
		(!pointed || len(whole) == 6 && len(fraction) >= 1 && len(fraction) <= 6)
}

// pattern matches text with the wildcards * and ?. What stands before the first wildcard narrows the search by the column's index.
func pattern(column, value string) (clause, error) {
	if len(value) > maxPattern {
		return clause{}, fmt.Errorf("the value is longer than %d bytes", maxPattern)
	}
	for strings.Contains(value, "**") {
		value = strings.ReplaceAll(value, "**", "*")
	}
	first := strings.IndexAny(value, "*?")
	if first < 0 {
		return clause{sql: column + " = ?", args: []any{value}, narrow: true}, nil
	}
	if strings.Count(value, "*") > maxWildcards {
		return clause{}, fmt.Errorf("the value has more than %d wildcards", maxWildcards)
	}
	glob := strings.ReplaceAll(value, "[", "[[]")
	if first == 0 {
		return clause{sql: "glob(?, " + column + ")", args: []any{glob}}, nil
	}
	prefix := value[:first]
	return clause{sql: column + " >= ? AND " + column + " < ? AND glob(?, " + column + ")", args: []any{prefix, prefix + "\U0010FFFF", glob}, narrow: true}, nil
}

// globs matches text with the wildcards * and ? without SQL, in time that grows with the product of both lengths.
func globs(pattern, text string) bool {
	p, s := []rune(pattern), []rune(text)
	i, star, mark := 0, -1, 0
	for j := 0; j < len(s); {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return !slices.ContainsFunc(p[i:], func(r rune) bool { return r != '*' })
}

// fuzzyCondition matches names whose words begin with the words of the value, in any order, case, width or spelling. ok is false where
// the value has wildcards inside its words, which only literal matching knows.
func fuzzyCondition(field int, value string) (c clause, ok bool, err error) {
	if len(value) > maxPattern {
		return clause{}, false, fmt.Errorf("the value is longer than %d bytes", maxPattern)
	}
	bare := strings.NewReplacer("*^", "^", "*=", "=", "* ", " ", "^*", "^").Replace(strings.Trim(value, "*"))
	if strings.ContainsAny(bare, "*?") {
		return clause{}, false, nil
	}
	all := spellings(bare)
	// The longest word is likely to be the rarest: its names are looked up, and the other words in each of them.
	slices.SortStableFunc(all, func(a, b []string) int { return len(b[0]) - len(a[0]) })
	for i, alternatives := range all {
		var any1 []string
		var args []any
		for _, w := range alternatives {
			any1 = append(any1, "(w.word >= ? AND w.word < ?)")
			args = append(args, w, w+"\U0010FFFF")
		}
		one := "w.field = " + strconv.Itoa(field) + " AND (" + strings.Join(any1, " OR ") + ")"
		c.args = append(c.args, args...)
		if i == 0 {
			c.sql = "s.id IN (SELECT w.study FROM name_word w WHERE " + one
			continue
		}
		c.sql += " AND EXISTS (SELECT 1 FROM name_word v WHERE v.study = w.study AND " + strings.ReplaceAll(one, "w.", "v.") + ")"
	}
	if c.sql != "" {
		c.sql += ")"
	}
	c.narrow = true
	return c, c.sql != "", nil
}
