package sr_test

import (
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// dump writes a data set as indented lines. An item of a code is one line; a content item starts with its relationship, value type
// and concept name, and its children are indented below it.
func dump(d pipeline.Dataset) string {
	var b strings.Builder
	dumpTo(&b, d, "")
	return b.String()
}

func dumpTo(b *strings.Builder, d pipeline.Dataset, indent string) {
	for _, e := range d {
		switch {
		case e.VR != "SQ":
			fmt.Fprintf(b, "%s%s %s %s\n", indent, e.Tag, e.VR, values(e))
		case len(e.Items) == 0:
			fmt.Fprintf(b, "%s%s SQ empty\n", indent, e.Tag)
		}
		for i, item := range e.Items {
			if code := item.String(pipeline.TagCodeValue); code != "" {
				fmt.Fprintf(b, "%s%s SQ %s\n", indent, e.Tag, codeText(item))
				continue
			}
			fmt.Fprintf(b, "%s%s SQ %d\n", indent, e.Tag, i+1)
			dumpTo(b, item, indent+"  ")
		}
	}
}

func codeText(item pipeline.Dataset) string {
	s := fmt.Sprintf("(%s,%s,%q)", item.String(pipeline.TagCodeValue), item.String(pipeline.TagCodingSchemeDesignator), item.String(pipeline.TagCodeMeaning))
	for _, same := range item.Items(pipeline.TagEquivalentCodeSequence) {
		s += " = " + codeText(same)
	}
	return s
}

func values(e pipeline.Element) string {
	if len(e.Text) == 0 {
		return "empty"
	}
	return strings.Join(e.Text, `\`)
}

// paths lists the content items of a tree, each as the chain of relationships, value types and concept names that leads to it,
// with its value: "" for a container.
func paths(d pipeline.Dataset) []string {
	var out []string
	var visit func(item pipeline.Dataset, above string)
	visit = func(item pipeline.Dataset, above string) {
		here := above + "/" + strings.TrimSpace(item.String(pipeline.TagRelationshipType)+" "+item.String(pipeline.TagValueType))
		if names := item.Items(pipeline.TagConceptNameCodeSequence); len(names) > 0 {
			here += " " + names[0].String(pipeline.TagCodeMeaning)
		}
		value := item.String(pipeline.TagTextValue)
		if v := item.Items(pipeline.TagConceptCodeSequence); len(v) > 0 {
			value = v[0].String(pipeline.TagCodeMeaning)
		}
		out = append(out, here+" = "+value)
		for _, child := range item.Items(pipeline.TagContentSequence) {
			visit(child, here)
		}
	}
	visit(d, "")
	return out
}
