package archive

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

const (
	maxUIDs      = 500 // in one list
	maxWildcards = 8   // in one pattern: each multiplies the work
	maxPattern   = 512 // bytes
)

// condition turns a value as DICOM writes it into SQL (PS3.4 section C.2.2.2). The error tells what is wrong without quoting the value.
func (k key) condition(value string) (string, []any, error) {
	switch k.kind {
	case kindUID:
		return uidList(k.columns[0], value)
	case kindDate:
		return ranged(k.columns[0], value, "a date (YYYYMMDD) or a range of dates", func(s string) bool { return len(s) == 8 && digits(s) })
	case kindTime:
		return ranged(k.columns[0], value, "a time (HHMMSS) or a range of times", isTime)
	case kindNumber:
		n, err := strconv.Atoi(value)
		if err != nil {
			return "", nil, errors.New("the value is not a whole number")
		}
		return k.columns[0] + " = ?", []any{strconv.Itoa(n)}, nil
	case kindName:
		value = fold(value)
	}
	var any1 []string
	var args []any
	for _, c := range k.columns {
		one, values, err := pattern(c, value)
		if err != nil {
			return "", nil, err
		}
		any1, args = append(any1, one), append(args, values...)
	}
	return strings.Join(any1, " OR "), args, nil
}

func uidList(column, value string) (string, []any, error) {
	uids := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '\\' })
	if len(uids) == 0 || len(uids) > maxUIDs {
		return "", nil, fmt.Errorf("the value is not a list of 1 to %d UIDs", maxUIDs)
	}
	var args []any
	for _, u := range uids {
		u = strings.TrimSpace(u)
		if !pipeline.ValidUID(u) {
			return "", nil, errors.New("the value is not a list of UIDs")
		}
		args = append(args, u)
	}
	return column + " IN (?" + strings.Repeat(",?", len(args)-1) + ")", args, nil
}

// ranged matches one value, a-b, a- or -b. An attribute without value matches no range.
func ranged(column, value, what string, valid func(string) bool) (string, []any, error) {
	low, high, isRange := strings.Cut(value, "-")
	low, high = strings.TrimSpace(low), strings.TrimSpace(high)
	if !isRange {
		high = low
	}
	if low == "" && high == "" || low != "" && !valid(low) || high != "" && !valid(high) {
		return "", nil, errors.New("the value is not " + what)
	}
	// '~' sorts behind digits and point: an end of lower precision takes in all that begins with it.
	switch {
	case low == "":
		return column + " != '' AND " + column + " <= ?", []any{high + "~"}, nil
	case high == "":
		return column + " >= ?", []any{low}, nil
	}
	return column + " BETWEEN ? AND ?", []any{low, high + "~"}, nil
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func isTime(s string) bool {
	whole, fraction, pointed := strings.Cut(s, ".")
	return digits(whole) && digits(fraction) && (len(whole) == 2 || len(whole) == 4 || len(whole) == 6) &&
		(!pointed || len(whole) == 6 && len(fraction) >= 1 && len(fraction) <= 6)
}

// pattern matches text with the wildcards * and ?. What stands before the first wildcard narrows the search by the column's index.
func pattern(column, value string) (string, []any, error) {
	if len(value) > maxPattern {
		return "", nil, fmt.Errorf("the value is longer than %d bytes", maxPattern)
	}
	for strings.Contains(value, "**") {
		value = strings.ReplaceAll(value, "**", "*")
	}
	first := strings.IndexAny(value, "*?")
	if first < 0 {
		return column + " = ?", []any{value}, nil
	}
	if strings.Count(value, "*") > maxWildcards {
		return "", nil, fmt.Errorf("the value has more than %d wildcards", maxWildcards)
	}
	glob := strings.ReplaceAll(value, "[", "[[]")
	if first == 0 {
		return column + " GLOB ?", []any{glob}, nil
	}
	prefix := value[:first]
	return column + " >= ? AND " + column + " < ? AND " + column + " GLOB ?", []any{prefix, prefix + "\U0010FFFF", glob}, nil
}
