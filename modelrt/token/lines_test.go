package token

import (
	"encoding/base64"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// linesFile is for testdata/make_golden.py: go test ./modelrt/token -run TestLines -args -lines FILE
var linesFile = flag.String("lines", "", "write the lines of text that are compared with the oracles to this file, in base64")

const (
	lineCount = 10_000
	lineSeed  = 5
)

var (
	nouns    = strings.Fields("effusion consolidation nodule heart mediastinum catheter pneumothorax atelectasis hilum rib diaphragm apex opacity")
	sides    = strings.Fields("left right bilateral basal retrocardiac")
	changes  = strings.Fields("unchanged new resolved enlarged smaller stable")
	openings = []string{"There is", "No evidence of", "Again seen is", "COMPARED WITH THE PRIOR:", "Impression:", "1.", "Status post"}
	world    = []string{
		"Größe des Herzens: übermäßig, à gauche; ça va? señor Ångström", "łódź żółć – Příliš žluťoučký kůň", "Ünïcödé ﬁne ﬂow Ǆ ǅ ʰ ƻ ª º ﬃ ﬆ",
		"Το πνευμονικό πεδίο είναι καθαρό. ΤΕΛΟΣ Σίσυφος", "Сердце не увеличено. Лёгкие чистые.", "لا يوجد انصباب جنبي في الجهة اليسرى", "הלב אינו מוגדל, הריאות נקיות",
		"फेफड़े साफ हैं। हृदय सामान्य है।", "ปอดปกติ ไม่มีน้ำ", "심장 크기는 정상입니다", "心臓の大きさは正常です。肺野は清明。ｶﾀｶﾅ", "双肺清晰，心影不大。未见明显异常。", "ཕོ་བྲང་", "გული ნორმალურია",
		"ሳንባ ንጹህ ነው", "Không có tràn dịch màng phổi. Tim bình thường.", "İstanbul ılık İ i̇ ı I", "Ελληνικά ᾼ ᾳ ΐ ὕ", "ẞ ß ſ 'ſ it'S KELVIN K Å Ω", "ＦＵＬＬ　ｗｉｄｔｈ　１２３，（肺）",
		"½ ⅓ ² ³ ① ⑳ Ⅷ ↀ ৩ ٣ ४२ 〇 一二三 𝟙𝟚 ㊿ 𐄇 ㎏ ㏒ ㍿ ℡ ﷺ", "µg/mL ≥5 mm ± 2 × 10⁶ °C ∑∫√∞ ≠≈ €£¥₿ ¼″ 5′", "«quotes» „low“ ‘single’ ‹angle› …—–‐ ‼ ⁇ ․․․", "Zürich, naïve café, coöperate, résumé, Ñandú",
	}
	emoji    = []string{"🫁", "🫀", "👩\U0001f3fd\u200d⚕\ufe0f", "🇨🇭", "🇯🇵🇨🇭", "☢\ufe0f", "✅", "❌", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "👨\u200d👩\u200d👧\u200d👦", "1\ufe0f\u20e3", "#\ufe0f\u20e3", "🤦\U0001f3ff\u200d♂\ufe0f", "❤\ufe0f\u200d🔥", "☺", "👍\U0001f3fb👍", "🏳\ufe0f\u200d🌈", "🙂\u200d↔\ufe0f", "\u200d", "\ufe0f"}
	spaces   = []string{" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n\n", "\u00a0", "\u2003", "\u3000", "\u202f", "\u205f", "\u1680", "\u200b", "\u200d", "\u200c", "\ufeff", "\u2060", "\u00ad", "\u0085", "\u2028", "\u2029", "\v", "\f", "    ", "\u2581", " \u2581 ", "\u180e"}
	bidi     = []string{"\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\u061c"}
	controls = []string{"\x00", "\x01", "\x02", "\x07", "\x08", "\x0e", "\x1b", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f", "\u0080", "\u0081", "\u009f", "\ufffd", "\ufffe", "\uffff", "\U0010fffd", "\ue000", "\ufdd0", "\U000e0001"}
	accents  = []string{"\u0300", "\u0301", "\u0302", "\u0303", "\u0308", "\u0323", "\u0327", "\u0328", "\u0334", "\u0338", "\u0345", "\u035c", "\u0483", "\u05b0", "\u05bc", "\u064b", "\u0651", "\u093c", "\u094d", "\u0e31", "\u0e48", "\u0f71", "\u0f72", "\u1039", "\u20d0", "\u20e3", "\u302a", "\u3099", "\u309a", "\ufe0f", "\u07fd", "\u0898", "\u1dfb", "\U0001e08f", "\U00011f41", "\u0897", "\U00016ff0", "\U0001d165", "\U0001d167"}
	special  = []string{"<s>", "</s>", "<unk>", "<pad>", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<bos>", "<eos>",
		"<start_of_turn>", "<start_of_image>", "<img>", "</img>", "<imgpad>", "<ref>", "<box>(1,2),(3,4)</box>", "[INST]", "[/INST]", "<<SYS>>", "###", "<image>", "<0x41>", "<0xE2>", "<0x0A>", "##ing", "Ġ", "Ċ", "▁", "▁the",
		"<extra_id_0>", "<extra_id_99>", "＜s＞", "＜/ｓ＞", "<mask>", " <mask> ", "<|im_", "|>", "<think>", "</think>", "<tool_call>", "<unused7>", "<h1>", "</h1>", "[gMASK]", "<|vision_start|><|image_pad|><|vision_end|>"}
	code = []string{"{\"a\": [1, 2.5, null]}\n\tif (x) { return y; }", "http://example.org/a?b=c&d=%20e#f", "C:\\dir\\file.txt", "____ ---- ==== ####", "!!!???", "a!b@c#d$e%f^g&h*i(j)k", "camelCaseAndPascalCase SHOUTING_SNAKE",
		"1,234,567.89e-10", "12 cm x 3.5 cm", "v1.2.3-rc4", "T12/L1", "0xFF 1_000", "...5", "--5--", "  ...  ", "don't I'll we've she'd I'm they're it's", "DON'T I'LL WE'VE 'S 'sx 's's 're're ''s '' ' s", "rock'n'roll 'tis o'clock's", "it’s do not n't 'm",
		"^~`|<>=+$", "@#", "a@b.cd", "x\ty\tz", "٣٫١٤", "1234567890123", "𝟘𝟙𝟚", "a1b22c333d4444"}
)

// makeLines makes the texts that are compared with the oracles. Every word of them is made up here; the same seed makes the same lines.
func makeLines(n int, seed uint64) []string {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	several := func(most int, part func() string) string {
		var b strings.Builder
		for range 1 + r.IntN(most) {
			b.WriteString(part())
		}
		return b.String()
	}
	anyRune := func() string {
		for {
			limit := []int{0x7F, 0x7FF, 0xFFFF, 0x1FFFF, 0x10FFFF, 0x3000}[r.IntN(6)]
			if c := r.IntN(limit + 1); c < 0xD800 || c > 0xDFFF {
				return string(rune(c))
			}
		}
	}
	from := func(lo, hi int) func() string { return func() string { return string(rune(lo + r.IntN(hi-lo))) } }
	report := func() string {
		return fmt.Sprintf("%s %s %s %s measuring %d.%d mm, %s (image %d/%d).", pick(openings), pick([]string{"a small", "no", "a", "mild", "severe"}), pick(sides), pick(nouns),
			r.IntN(99), r.IntN(10), pick(changes), r.IntN(300), 1990+r.IntN(60))
	}
	kinds := []func() string{
		report, report,
		func() string { return pick(world) },
		func() string { return pick(world) + pick(spaces) + report() },
		func() string {
			return several(12, func() string {
				return several(1, from('A', 'z')) + several(3, func() string { return pick(accents) }) + []string{"", " ", "e"}[r.IntN(3)]
			})
		},
		func() string {
			return several(20, from(0x4E00, 0x9FFF)) + several(4, from(0x3040, 0x30FF)) + pick([]string{"", "。", " "}) + several(5, from(0xAC00, 0xD7A3))
		},
		func() string {
			return several(6, func() string { return pick(emoji) + []string{"", " ok ", "\n"}[r.IntN(3)] })
		},
		func() string {
			return several(8, func() string { return pick(spaces) + pick([]string{"", "x", "word", "5", ".", "肺"}) })
		},
		func() string {
			return several(6, func() string { return pick(bidi) + pick(world[5:7]) + pick(bidi) + pick([]string{"", "abc 12"}) })
		},
		func() string {
			return several(8, func() string { return pick(controls) + pick([]string{"", "a", " b", "\n"}) })
		},
		func() string {
			b := []byte(report() + pick(world))
			for range 1 + r.IntN(4) {
				b[r.IntN(len(b))] = []byte{0x80, 0xBF, 0xC0, 0xC3, 0xE2, 0xED, 0xF0, 0xF4, 0xFE, 0xFF}[r.IntN(10)]
			}
			return string(b)
		},
		func() string {
			return strings.Repeat(pick([]string{"a", " ", "9", "é", "肺", "!", "ab", "\n", "-", "🫁", "▁", "x y", "e\u0301", "\u3000", "'s"}), 1+r.IntN(120)) + pick([]string{"", "x", " ", "."})
		},
		func() string { return several(24, anyRune) },
		func() string {
			return several(5, func() string {
				return pick([]string{"", " ", "a", "\n", "  "}) + pick(special) + pick([]string{"", " ", "b", "\n", ". "})
			})
		},
		func() string { return pick(code) + pick(spaces) + pick(code) },
		func() string { return strings.ToUpper(report()) + several(3, func() string { return pick(accents) }) },
	}
	lines := []string{"", " ", "a", "\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "<s>", "▁"}
	for len(lines) < n {
		line := kinds[r.IntN(len(kinds))]()
		if r.IntN(4) == 0 {
			line += pick(spaces) + kinds[r.IntN(len(kinds))]()
		}
		lines = append(lines, line)
	}
	return lines
}

func TestLines(t *testing.T) {
	lines := makeLines(lineCount, lineSeed)
	if len(lines) != lineCount {
		t.Fatalf("%d lines", len(lines))
	}
	again := makeLines(lineCount, lineSeed)
	for i := range lines {
		if lines[i] != again[i] {
			t.Fatalf("line %d is another one the second time", i)
		}
	}
	if *linesFile != "" {
		if err := os.WriteFile(*linesFile, []byte(encodeLines(lines)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func encodeLines(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(base64.StdEncoding.EncodeToString([]byte(l)) + "\n")
	}
	return b.String()
}
