package sr

import (
	"strconv"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	"chatxray/pipeline"
)

// The relationships of content items (PS3.3 section C.17.3.2.4).
const (
	contains      = "CONTAINS"
	hasConceptMod = "HAS CONCEPT MOD"
	hasObsContext = "HAS OBS CONTEXT"
	hasAcqContext = "HAS ACQ CONTEXT"
	inferredFrom  = "INFERRED FROM"
)

// content starts a content item (PS3.3 section C.17.3): its relationship to the parent ("" for the root), value type, concept name
// and children.
func content(relation, valueType string, name *code, children ...pipeline.Dataset) pipeline.Dataset {
	d := make(pipeline.Dataset, 0, 4+2*min(len(children), 1)) // a value to come, and a container's template
	if relation != "" {
		d.SetText(pipeline.TagRelationshipType, "CS", relation)
	}
	d.SetText(pipeline.TagValueType, "CS", valueType)
	if name != nil {
		d.SetItems(pipeline.TagConceptNameCodeSequence, codeItem(*name))
	}
	if len(children) > 0 {
		d.SetItems(pipeline.TagContentSequence, children...)
	}
	return d
}

// container makes a CONTAINER; template is the number of its template in PS3.16, "" where none is named.
func container(relation string, name code, template string, children ...pipeline.Dataset) pipeline.Dataset {
	d := content(relation, "CONTAINER", &name, children...)
	d.SetText(pipeline.TagContinuityOfContent, "CS", "SEPARATE")
	if template != "" {
		var t pipeline.Dataset
		t.SetText(pipeline.TagMappingResource, "CS", "DCMR")
		t.SetText(pipeline.TagTemplateIdentifier, "CS", template)
		d.SetItems(pipeline.TagContentTemplateSequence, t)
	}
	return d
}

func textContent(relation string, name code, text string, children ...pipeline.Dataset) pipeline.Dataset {
	d := content(relation, "TEXT", &name, children...)
	d.SetText(pipeline.TagTextValue, "UT", text)
	return d
}

func codeContent(relation string, name, value code, children ...pipeline.Dataset) pipeline.Dataset {
	d := content(relation, "CODE", &name, children...)
	d.SetItems(pipeline.TagConceptCodeSequence, codeItem(value))
	return d
}

func uidContent(relation string, name code, uid string) pipeline.Dataset {
	d := content(relation, "UIDREF", &name)
	d.SetText(pipeline.TagUID, "UI", uid)
	return d
}

// imageContent refers to an image; name may be nil.
func imageContent(relation string, name *code, ref pipeline.InputRef) pipeline.Dataset {
	d := content(relation, "IMAGE", name)
	var r pipeline.Dataset
	r.SetText(pipeline.TagReferencedSOPClassUID, "UI", ref.SOPClassUID)
	r.SetText(pipeline.TagReferencedSOPInstanceUID, "UI", ref.SOPInstanceUID)
	if ref.Frame > 0 {
		r.SetText(pipeline.TagReferencedFrameNumber, "IS", strconv.Itoa(ref.Frame))
	}
	d.SetItems(pipeline.TagReferencedSOPSequence, r)
	return d
}

// imageContents refers to every image of the reading.
func (d *draft) imageContents(relation string, name *code) []pipeline.Dataset {
	var items []pipeline.Dataset
	for _, ref := range d.images {
		items = append(items, imageContent(relation, name, ref))
	}
	return items
}

// codeItem is the item of a code sequence (PS3.3 table 8.8-1).
func codeItem(c code) pipeline.Dataset {
	d := pipeline.Dataset{
		{Tag: pipeline.TagCodeValue, VR: "SH", Text: []string{c.Value}},
		{Tag: pipeline.TagCodingSchemeDesignator, VR: "SH", Text: []string{c.Scheme}},
		{Tag: pipeline.TagCodeMeaning, VR: "LO", Text: []string{c.Meaning}},
	}
	if c.Same != nil {
		d.SetItems(pipeline.TagEquivalentCodeSequence, codeItem(*c.Same))
	}
	return d
}

// languageContent is TID 1204 with a tag of RFC 5646: the language, and the country where the tag names one, as CID 5000 and 5001 have them (a
// script has no place there). Both are named in the language itself where documents are told in it, else in English.
func languageContent(tag language.Tag) pipeline.Dataset {
	base, _, region := tag.Raw()
	languages, regions := display.English.Languages(), display.English.Regions()
	if column(tag) >= 0 {
		languages, regions = display.Languages(tag), display.Regions(tag)
	}
	var country []pipeline.Dataset
	if region.IsCountry() {
		country = append(country, codeContent(hasConceptMod, countryOfLanguage, code{region.String(), "ISO3166_1", regions.Name(region), nil}))
	}
	name := languages.Name(base)
	if name == "" {
		name = base.String()
	}
	return codeContent(hasConceptMod, languageOfContent, code{base.String(), "RFC5646", name, nil}, country...)
}

// observer is TID 1001 for a device that has written the document (TID 1004).
func (d *draft) observer() []pipeline.Dataset {
	return []pipeline.Dataset{
		codeContent(hasObsContext, observerType, deviceObserver),
		uidContent(hasObsContext, deviceObserverUID, d.device),
		textContent(hasObsContext, deviceObserverName, d.Station),
		textContent(hasObsContext, deviceObserverMaker, Manufacturer),
		textContent(hasObsContext, deviceObserverModel, d.Reading.Model.Name),
	}
}

// algorithm is TID 4019. It says the same as the Contributing Equipment Sequence.
func (d *draft) algorithm() []pipeline.Dataset {
	return []pipeline.Dataset{
		textContent(hasConceptMod, algorithmName, d.Reading.Model.Name),
		textContent(hasConceptMod, algorithmVersion, modelVersion(d.Reading.Model)),
	}
}

// procedure says which procedure is reported: the study's where the header names one by a whole code, else any imaging.
func (d *draft) procedure() pipeline.Dataset {
	c := imagingProcedure
	if own := d.procedureCodes(); len(own) > 0 {
		c = own[0]
	}
	return codeContent(hasConceptMod, procedureReported, c)
}

// english marks a text that this package words itself, where the report is in another language.
func (d *draft) english() []pipeline.Dataset {
	if base, _ := d.language.Base(); base.String() == "en" {
		return nil
	}
	return []pipeline.Dataset{languageContent(language.English)}
}
