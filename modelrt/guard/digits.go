package guard

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

const mostInteger = 999_999_999_999_999 // fifteen digits, which every reader of JSON keeps

// integers returns the form of the integers within minimum, maximum, exclusiveMinimum and exclusiveMaximum.
func integers(v *value, at string) (form, error) {
	least, most := int64(-mostInteger), int64(mostInteger)
	for _, k := range v.keys {
		if keywords[k] != "integer" {
			continue
		}
		b := v.get(k)
		var f float64
		if b.kind != "number" || json.Unmarshal([]byte(b.text), &f) != nil {
			return nil, invalid(at, "%s is no number", k)
		}
		f = max(-mostInteger-1, min(f, mostInteger+1))
		switch k {
		case "minimum":
			least = max(least, int64(math.Ceil(f)))
		case "maximum":
			most = min(most, int64(math.Floor(f)))
		case "exclusiveMinimum":
			least = max(least, int64(math.Floor(f))+1)
		case "exclusiveMaximum":
			most = min(most, int64(math.Ceil(f))-1)
		}
	}
	if least > most {
		return nil, invalid(at, "no integer is from its minimum to its maximum")
	}
	var all choice
	if least < 0 {
		all = append(all, word{literal("-"), digits(max(1, -most), -least)})
	}
	if most >= 0 {
		all = append(all, digits(max(0, least), most))
	}
	return all, nil
}

// digits returns the form of the numbers from least to most, neither negative, without leading zeros.
func digits(least, most int64) form {
	var all choice
	for from, to := int64(0), int64(9); from <= most; from, to = to+1, to*10+9 {
		if lo, hi := max(from, least), min(to, most); lo <= hi {
			all = append(all, sameLength(strconv.FormatInt(lo, 10), strconv.FormatInt(hi, 10)))
		}
	}
	return all
}

// sameLength returns the form of the strings of digits from a to b, which have one length.
func sameLength(a, b string) form {
	n := len(a)
	if a == b {
		return literal(a)
	}
	digit := func(from, to byte) form { return among{{rune(from), rune(to)}} }
	if a == strings.Repeat("0", n) && b == strings.Repeat("9", n) {
		return repeat{digit('0', '9'), n, n}
	}
	if a[0] == b[0] {
		return word{literal(a[:1]), sameLength(a[1:], b[1:])}
	}
	all := choice{
		word{literal(a[:1]), sameLength(a[1:], strings.Repeat("9", n-1))},
		word{literal(b[:1]), sameLength(strings.Repeat("0", n-1), b[1:])},
	}
	if a[0]+1 < b[0] {
		all = append(all, word{digit(a[0]+1, b[0]-1), repeat{digit('0', '9'), n - 1, n - 1}})
	}
	return all
}
