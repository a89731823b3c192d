package dicom_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

const tagPatientName pipeline.Tag = 0x00100010

// TestCharacterSets decodes the examples of PS3.5 annexes H, I, J and K, written as bytes, and some that mix sets.
func TestCharacterSets(t *testing.T) {
	for _, c := range []struct{ name, sets, bytes, want string }{
		{"default", "", "Doe^J", "Doe^J"},
		{"default, but UTF-8", "", "Gr\xC3\xB6\xC3\x9Fe", "Größe"},
		{"default, high bytes", "", "Gr\xF6e", "Gr\uFFFDe"},
		{"Latin-1", "ISO_IR 100", "\xC4neas^R\xFCdiger", "Äneas^Rüdiger"},
		{"Latin-1 with a hyphen", "ISO-IR 100", "\xC4neas", "Äneas"},
		{"Latin-1 without a space", "ISO_IR100", "\xC4neas", "Äneas"},
		{"Japanese with hyphens", "\\ISO-2022-IR-87", "\x1B$B;3ED\x1B(B", "山田"},
		{"Latin-2", "ISO_IR 101", "Wa\xB3\xEAsa", "Wałęsa"},
		{"Latin-9", "ISO_IR 203", "\xA4\xBC", "€Œ"},
		{"Cyrillic", "ISO_IR 144", "\xBB\xEE\xDACe\xDC\xD1y\xE0\xD3", "ЛюкCeмбyрг"},
		{"Greek", "ISO_IR 126", "\xC4\xE9\xEF\xED", "Διον"},
		{"Hebrew", "ISO_IR 138", "\xF9\xF8\xE5\xEF", "שרון"},
		{"Thai", "ISO_IR 166", "\xCA\xC1\xAA\xD2\xC2", "สมชาย"},
		{"UTF-8", "ISO_IR 192", "Wang^XiaoDong=\xE7\x8E\x8B^\xE5\xB0\x8F\xE6\x9D\xB1=", "Wang^XiaoDong=王^小東="},
		{"broken UTF-8", "ISO_IR 192", "a\xFFb", "a\uFFFDb"},
		{"GB18030, J.3", "GB18030", "Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB=", "Wang^XiaoDong=王^小东="},
		{"GBK with a backslash inside", "GBK", "\x8D\x5C", "峔"},
		{"Japanese, H.3.1", "\\ISO 2022 IR 87", "Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B", "Yamada^Tarou=山田^太郎=やまだ^たろう"},
		{"Japanese, H.3.2", "ISO 2022 IR 13\\ISO 2022 IR 87", "\xD4\xCF\xC0\xDE^\xC0\xDB\xB3=\x1B$B;3ED\x1B(J^\x1B$BB@O:\x1B(J=\x1B$B$d$^$@\x1B(J^\x1B$B$?$m$&\x1B(J", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"},
		{"JIS X 0201 alone", "ISO_IR 13", "\xD4\xCF\xC0\xDE", "ﾔﾏﾀﾞ"},
		{"Korean, I.2", "\\ISO 2022 IR 149", "Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF", "Hong^Gildong=洪^吉洞=홍^길동"},
		{"Chinese, K.2", "\\ISO 2022 IR 58", "Zhang^XiaoDong=\x1B$)A\xD5\xC5^\x1B$)A\xD0\xA1\xB6\xAB=", "Zhang^XiaoDong=张^小东="},
		{"Greek and Cyrillic by turns", "ISO 2022 IR 100\\ISO 2022 IR 126\\ISO 2022 IR 144", "\xC4^\x1B-F\xC4^\x1B-L\xBB", "Ä^Δ^Л"},
		{"sets go back at delimiters of a name", "ISO 2022 IR 100\\ISO 2022 IR 126", "\x1B-F\xC4^\xC4=\x1B-F\xC4=\xC4\\\xC4", "Δ^Ä=Δ=Ä\\Ä"},
		{"sets go back between values", "ISO 2022 IR 100\\ISO 2022 IR 126", "\x1B-F\xC4\\\xC4", "Δ\\Ä"},
		{"a kanji with the byte of a backslash", "\\ISO 2022 IR 87", "\x1B$B!\\\x1B(B", "＋"},
		{"an escape that is none", "\\ISO 2022 IR 87", "a\x1B!b", "a\x1B!b"},
		{"half a kanji", "\\ISO 2022 IR 87", "\x1B$B;", ";"},
		{"unknown set", "ISO_IR 999", "abc", "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := text(pipeline.TagSpecificCharacterSet, "CS", c.sets)
			b := file(dicom.ExplicitVRLittleEndian, set, uids8, text(tagPatientName, "PN", c.bytes), uids20)
			in, err := dicom.Open(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(in.Header.Strings(tagPatientName), "\\"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestTextValues splits, trims and keeps text as its VR wants.
func TestTextValues(t *testing.T) {
	b := file(dicom.ExplicitVRLittleEndian,
		text(0x00080008, "CS", "DERIVED \\ PRIMARY\\"), uids8,
		text(0x00081030, "LO", " a \\b "),
		text(0x00104000, "LT", " two\\lines\r\n  "),
		text(0x00101010, "AS", ""), text(0x00101030, "DS", "  "),
		uids20)
	in, err := dicom.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[pipeline.Tag]string{
		0x00080008: "DERIVED|PRIMARY|", 0x00081030: "a|b", 0x00104000: " two\\lines\r\n", 0x00101010: "", 0x00101030: "",
	} {
		if got := strings.Join(in.Header.Strings(tag), "|"); got != want {
			t.Errorf("%v is %q, want %q", tag, got, want)
		}
	}
}

// TestCharsetFiles compares the names in the data pack's files with what DCMTK makes of them. It is built without ISO 2022 Japanese.
func TestCharsetFiles(t *testing.T) {
	if _, err := exec.LookPath("dcmdump"); err != nil {
		t.Skip("dcmdump (DCMTK) is not installed")
	}
	paths, _ := filepath.Glob(filepath.Join(pack(t), "edge", "charset", "*.dcm"))
	value := regexp.MustCompile(`(?m)^\(0010,0010\) PN \[(.*)\] `)
	compared := 0
	for _, p := range paths {
		out, err := exec.Command("dcmdump", "+U8", "+P", "0010,0010", p).Output()
		m := value.FindSubmatch(out)
		if err != nil || m == nil {
			continue
		}
		in, err := dicom.OpenAnonymous(packFile(t, filepath.Join("edge", "charset", filepath.Base(p))))
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(p), err)
			continue
		}
		if got := in.Header.String(tagPatientName); got != string(m[1]) {
			t.Errorf("%s: the name differs from DCMTK's", filepath.Base(p))
		}
		compared++
	}
	if compared < 10 {
		t.Errorf("only %d names were compared", compared)
	}
}
