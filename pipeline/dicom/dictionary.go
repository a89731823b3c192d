package dicom

import (
	"slices"
	"sync"

	"github.com/suyashkumar/dicom/pkg/tag"

	"chatxray/pipeline"
)

// Lookup finds an attribute of the data dictionary (PS3.6) by its keyword. Where the standard leaves a choice of VRs, vr is
// the one that Keyword gives.
func Lookup(keyword string) (t pipeline.Tag, vr string, ok bool) {
	t, ok = findKeyword(keyword)
	if !ok {
		return 0, "", false
	}
	_, vr, ok = Keyword(t)
	return t, vr, ok
}

// Keyword finds the keyword and VR of an attribute in the data dictionary. Overlays and curves are found in each of their
// repeating groups. Private attributes and group lengths are not in it. Where the standard leaves a choice of VRs, vr is the
// choice for implicit VR: US of "US or SS", OW of "OB or OW" and of "US or OW".
func Keyword(t pipeline.Tag) (keyword, vr string, ok bool) {
	i, ok := info(t)
	if !ok || len(i.VRs) == 0 {
		return "", "", false
	}
	vr = i.VRs[0]
	if slices.Contains(i.VRs, "OW") {
		vr = "OW"
	}
	if vr == "SS" && slices.Contains(i.VRs, "US") {
		vr = "US"
	}
	return i.Keyword, vr, true
}

// AllowsVR tells whether an attribute may have a VR: one of the dictionary's, or UN. What the dictionary does not know may have any VR of
// the standard.
func AllowsVR(t pipeline.Tag, vr string) bool {
	if vrOf(vr).form == formNone {
		return false
	}
	i, ok := info(t)
	return !ok || len(i.VRs) == 0 || vr == "UN" || slices.Contains(i.VRs, vr) || vrOf(i.VRs[0]).form == formNone
}

// info is the library's entry for a tag, or for the first of its repeating groups (PS3.5 section 7.6).
func info(t pipeline.Tag) (tag.Info, bool) {
	g := t.Group()
	if g%2 == 1 || t.Element() == 0 {
		return tag.Info{}, false
	}
	if g&0xFF00 == 0x6000 || g&0xFF00 == 0x5000 {
		g &= 0xFF00
	}
	i, err := tag.Find(tag.Tag{Group: g, Element: t.Element()})
	return i, err == nil
}

// found remembers keywords that were found: the library's search walks its whole table.
var found sync.Map // string -> pipeline.Tag

func findKeyword(keyword string) (pipeline.Tag, bool) {
	if t, ok := found.Load(keyword); ok {
		return t.(pipeline.Tag), true
	}
	i, err := tag.FindByKeyword(keyword)
	if err != nil || i.Keyword != keyword { // it finds by the name, too
		return 0, false
	}
	t := pipeline.Tag(i.Tag.Uint32())
	found.Store(keyword, t)
	return t, true
}
