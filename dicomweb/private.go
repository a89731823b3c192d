package dicomweb

import (
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// Private attributes lie in blocks of 256, each reserved by a Private Creator element of its group (PS3.5 section 7.8.1): (gggg,00bb)
// owns (gggg,bb00) to (gggg,bbFF).
const firstBlock = 0x10

// blockOf is the tag of the element that owns a private attribute; 0 where nothing can own it.
func blockOf(t pipeline.Tag) pipeline.Tag {
	if t.Group()%2 == 0 || t.Element()>>8 < firstBlock {
		return 0
	}
	return pipeline.Tag(t.Group())<<16 | pipeline.Tag(t.Element()>>8)
}

// ownsBlock tells whether a tag is one of a Private Creator element.
func ownsBlock(t pipeline.Tag) bool {
	return t.Group()%2 == 1 && t.Element() >= firstBlock && t.Element() <= 0xFF
}

// privateOwners are the creators of a data set by the tags of their elements. Where one has several blocks of a group it is the first:
// without the block, attributes of two of them could not be told apart.
func privateOwners(d pipeline.Dataset) map[pipeline.Tag]string {
	var owners map[pipeline.Tag]string
	var seen map[inGroup]bool
	for _, e := range d {
		if !ownsBlock(e.Tag) || len(e.Text) == 0 || strings.TrimSpace(e.Text[0]) == "" {
			continue
		}
		if owners == nil {
			owners, seen = map[pipeline.Tag]string{}, map[inGroup]bool{}
		}
		in := inGroup{e.Tag.Group(), strings.TrimSpace(e.Text[0])}
		if !seen[in] {
			owners[e.Tag], seen[in] = in.creator, true
		}
	}
	return owners
}

// inGroup is a creator in a group.
type inGroup struct {
	group   uint16
	creator string
}

// placePrivate gives private attributes that are named by their creator the block which that one has in the data set. A creator without a
// block gets the first free one.
func placePrivate(d rawDataset) (rawDataset, error) {
	blocks, taken := map[inGroup]pipeline.Tag{}, map[pipeline.Tag]bool{}
	for _, r := range d {
		if b := blockOf(r.tag); b != 0 && r.creator == "" {
			taken[b] = true
		}
		if ownsBlock(r.tag) && r.creator == "" && len(r.values) > 0 {
			taken[r.tag] = true
			if k := (inGroup{r.tag.Group(), strings.TrimSpace(r.values[0])}); blocks[k] == 0 {
				blocks[k] = r.tag
			}
		}
	}
	for i := range d {
		r := &d[i]
		if r.creator == "" || r.tag.Group()%2 == 0 {
			continue
		}
		k := inGroup{r.tag.Group(), strings.TrimSpace(r.creator)}
		if blocks[k] == 0 {
			b := pipeline.Tag(r.tag.Group())<<16 | firstBlock
			for taken[b] && b.Element() < 0xFF {
				b++
			}
			if taken[b] {
				return nil, fmt.Errorf("%w: %v: the group has no free block for its privateCreator", errModel, r.tag)
			}
			blocks[k], taken[b] = b, true
			d = append(d, rawElement{tag: b, vr: "LO", values: []string{k.creator}})
			r = &d[i]
		}
		r.tag = r.tag&0xFFFF00FF | blocks[k]<<8&0xFF00
	}
	return d, nil
}
