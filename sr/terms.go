package sr

import (
	"golang.org/x/text/language"

	"chatxray/pipeline"
)

// termLanguages are the languages that code meanings and headings are told in besides English, in the order of the columns of terms.
var termLanguages = []string{"de", "fr", "es", "zh"}

// term is a word of documents and of the terminal in other languages: German, French, Spanish, Chinese.
type term struct {
	code
	in [4]string
}

// terms are the code meanings that people see. A code keeps its value in every language (PS3.3 section 8.3). They are words of ordinary
// reports; like the codes of labels, a radiologist who writes the language has to sign them off.
var terms = []term{
	{imagingMeasurementReport, [4]string{"Messbericht der Bildgebung", "Compte rendu de mesures d'imagerie", "Informe de mediciones de imagen", "影像测量报告"}},
	{imagingMeasurements, [4]string{"Messungen in der Bildgebung", "Mesures d'imagerie", "Mediciones de imagen", "影像测量"}},
	{measurementGroup, [4]string{"Messgruppe", "Groupe de mesures", "Grupo de mediciones", "测量组"}},
	{imageLibrary, [4]string{"Bildbibliothek", "Bibliothèque d'images", "Biblioteca de imágenes", "图像库"}},
	{imageLibraryGroup, [4]string{"Gruppe der Bildbibliothek", "Groupe de la bibliothèque d'images", "Grupo de la biblioteca de imágenes", "图像库分组"}},
	{modality, [4]string{"Modalität", "Modalité", "Modalidad", "检查设备类型"}},
	{trackingIdentifier, [4]string{"Verfolgungskennung", "Identifiant de suivi", "Identificador de seguimiento", "跟踪标识"}},
	{trackingUniqueIdentifier, [4]string{"Eindeutige Verfolgungskennung", "Identifiant unique de suivi", "Identificador único de seguimiento", "唯一跟踪标识"}},
	{finding, [4]string{"Befund", "Constatation", "Hallazgo", "所见"}},
	{impression, [4]string{"Beurteilung", "Conclusion", "Impresión diagnóstica", "诊断印象"}},
	{narrativeSummary, [4]string{"Zusammenfassung in Worten", "Résumé narratif", "Resumen narrativo", "文字摘要"}},
	{overallAssessment, [4]string{"Gesamtbeurteilung", "Évaluation globale", "Evaluación global", "总体评估"}},
	{algorithmName, [4]string{"Name des Algorithmus", "Nom de l'algorithme", "Nombre del algoritmo", "算法名称"}},
	{algorithmVersion, [4]string{"Version des Algorithmus", "Version de l'algorithme", "Versión del algoritmo", "算法版本"}},
	{sourceOfMeasurement, [4]string{"Quelle der Messung", "Source de la mesure", "Origen de la medición", "测量来源"}},
	{bestIllustration, [4]string{"Beste Darstellung des Befundes", "Meilleure illustration de la constatation", "Mejor ilustración del hallazgo", "所见的最佳图示"}},
	{languageOfContent, [4]string{"Sprache dieses Eintrags und der Einträge darunter", "Langue de l'élément et de ses descendants", "Idioma del elemento y de sus descendientes", "本项及其下级内容的语言"}},
	{countryOfLanguage, [4]string{"Land der Sprache", "Pays de la langue", "País del idioma", "语言所属国家"}},
	{observerType, [4]string{"Art des Beobachters", "Type d'observateur", "Tipo de observador", "观察者类型"}},
	{deviceObserver, [4]string{"Gerät", "Appareil", "Dispositivo", "设备"}},
	{deviceObserverUID, [4]string{"UID des Geräts", "UID de l'appareil", "UID del dispositivo", "设备唯一标识"}},
	{deviceObserverName, [4]string{"Name des Geräts", "Nom de l'appareil", "Nombre del dispositivo", "设备名称"}},
	{deviceObserverMaker, [4]string{"Hersteller des Geräts", "Fabricant de l'appareil", "Fabricante del dispositivo", "设备制造商"}},
	{deviceObserverModel, [4]string{"Modell des Geräts", "Modèle de l'appareil", "Modelo del dispositivo", "设备型号"}},
	{procedureReported, [4]string{"Befundete Untersuchung", "Examen interprété", "Procedimiento informado", "所报告的检查"}},
	{imagingProcedure, [4]string{"Bildgebende Untersuchung", "Examen d'imagerie", "Procedimiento de imagen", "影像检查"}},
	{qualitativeEvaluations, [4]string{"Qualitative Beurteilungen", "Évaluations qualitatives", "Evaluaciones cualitativas", "定性评估"}},
	{presence, [4]string{"Vorhandensein", "Présence", "Presencia", "存在情况"}},
	{presences[pipeline.Present], [4]string{"Vorhanden", "Présent", "Presente", "存在"}},
	{presences[pipeline.Absent], [4]string{"Nicht vorhanden", "Absent", "Ausente", "不存在"}},
	{presences[pipeline.Undetermined], [4]string{"Unbestimmt", "Indéterminé", "Indeterminado", "不确定"}},
	{normal, [4]string{"Unauffällig", "Normal", "Normal", "正常"}},
	{abnormal, [4]string{"Auffällig", "Anormal", "Anormal", "异常"}},
	{normalityUndetermined, [4]string{"Unbestimmt, ob auffällig", "Normalité indéterminée", "Normalidad indeterminada", "是否正常不确定"}},
	{diagnosticImagingReport, [4]string{"Radiologischer Befundbericht", "Compte rendu d'imagerie diagnostique", "Informe de diagnóstico por imagen", "影像诊断报告"}},
	{procedureDescriptions, [4]string{"Beschreibung der Untersuchung", "Description de l'examen", "Descripción del procedimiento", "检查描述"}},
	{findingsSection, [4]string{"Befund", "Résultats", "Hallazgos", "影像所见"}},
	{impressionsSection, [4]string{"Beurteilung", "Conclusion", "Impresión diagnóstica", "诊断印象"}},
	{modalities["CR"], [4]string{"Speicherfolienradiographie", "Radiographie numérisée", "Radiografía computarizada", "计算机X线摄影"}},
	{modalities["DX"], [4]string{"Digitale Radiographie", "Radiographie numérique", "Radiografía digital", "数字X线摄影"}},
	{modalities["RF"], [4]string{"Durchleuchtung", "Radioscopie", "Radiofluoroscopia", "X线透视"}},
	{modalities["RG"], [4]string{"Radiographie", "Radiographie", "Radiografía", "X线摄影"}},
	{modalities["XA"], [4]string{"Röntgenangiographie", "Angiographie par rayons X", "Angiografía por rayos X", "X线血管造影"}},
}

// labelTerms are the labels of the closed list, also where the terminal names them.
var labelTerms = map[string][4]string{
	"No Finding":                 {"Kein Befund", "Aucune anomalie", "Sin hallazgos", "未见异常"},
	"Enlarged Cardiomediastinum": {"Verbreitertes Kardiomediastinum", "Élargissement cardiomédiastinal", "Ensanchamiento cardiomediastínico", "心纵隔增大"},
	"Cardiomegaly":               {"Kardiomegalie", "Cardiomégalie", "Cardiomegalia", "心影增大"},
	"Lung Lesion":                {"Lungenläsion", "Lésion pulmonaire", "Lesión pulmonar", "肺部病灶"},
	"Lung Opacity":               {"Verschattung der Lunge", "Opacité pulmonaire", "Opacidad pulmonar", "肺部阴影"},
	"Edema":                      {"Lungenödem", "Œdème pulmonaire", "Edema pulmonar", "肺水肿"},
	"Consolidation":              {"Konsolidierung", "Condensation pulmonaire", "Consolidación pulmonar", "肺实变"},
	"Pneumonia":                  {"Pneumonie", "Pneumonie", "Neumonía", "肺炎"},
	"Atelectasis":                {"Atelektase", "Atélectasie", "Atelectasia", "肺不张"},
	"Pneumothorax":               {"Pneumothorax", "Pneumothorax", "Neumotórax", "气胸"},
	"Pleural Effusion":           {"Pleuraerguss", "Épanchement pleural", "Derrame pleural", "胸腔积液"},
	"Pleural Other":              {"Anderer Pleurabefund", "Autre anomalie pleurale", "Otro hallazgo pleural", "其他胸膜病变"},
	"Fracture":                   {"Fraktur", "Fracture", "Fractura", "骨折"},
	"Support Devices":            {"Katheter, Sonden, Implantate", "Dispositifs médicaux", "Dispositivos médicos", "医疗装置"},
}

// notSaid is the presence that no document holds.
var notSaid = [4]string{"Nicht erwähnt", "Non mentionné", "No mencionado", "未提及"}

// column is the place of a language in terms; -1 for English and for every language that they are not told in.
func column(tag language.Tag) int {
	base, _ := tag.Base()
	for i, l := range termLanguages {
		if base.String() == l {
			if l == "zh" { // the characters are simplified
				if script, _ := tag.Script(); script.String() != "Hans" {
					return -1
				}
			}
			return i
		}
	}
	return -1
}

// Heading names a section of a report in a language, in English where terms are not told in it.
func Heading(languageTag string, s pipeline.Section) string {
	c := findingsSection
	if s == pipeline.SectionImpression {
		c = impression
	}
	return meaning(column(language.Make(languageTag)), c)
}

// LabelName names a label of the closed list.
func LabelName(languageTag, label string) string {
	if at := column(language.Make(languageTag)); at >= 0 && labelTerms[label][at] != "" {
		return labelTerms[label][at]
	}
	return label
}

// PresenceName names what a report says about a label.
func PresenceName(languageTag string, p pipeline.Presence) string {
	at := column(language.Make(languageTag))
	switch {
	case at < 0:
		return string(p)
	case p == pipeline.NotSaid:
		return notSaid[at]
	}
	return meaning(at, presences[p])
}

// meaning is the meaning of a code in the language of a column.
func meaning(at int, c code) string {
	if at < 0 {
		return c.Meaning
	}
	for _, t := range terms {
		if t.Value == c.Value && t.Scheme == c.Scheme {
			return t.in[at]
		}
	}
	for _, l := range labels {
		if c.Value == l.Value && c.Scheme == l.Scheme || c.Value == l.Private && c.Scheme == private {
			return labelTerms[l.Label][at]
		}
	}
	return c.Meaning
}

// translate tells the code meanings of a content item and of those below it in the language of a column. Items that are marked as English stay.
func translate(item pipeline.Dataset, at int, root bool) {
	children := item.Items(pipeline.TagContentSequence)
	if !root {
		for _, c := range children {
			if isCode(c, pipeline.TagConceptNameCodeSequence, languageOfContent) {
				return
			}
		}
	}
	for _, t := range []pipeline.Tag{pipeline.TagConceptNameCodeSequence, pipeline.TagConceptCodeSequence} {
		translateCodes(item.Items(t), at)
	}
	for _, c := range children {
		translate(c, at, false)
	}
}

func translateCodes(items []pipeline.Dataset, at int) {
	for i := range items {
		c := code{items[i].String(pipeline.TagCodeValue), items[i].String(pipeline.TagCodingSchemeDesignator), items[i].String(pipeline.TagCodeMeaning), nil}
		items[i].SetText(pipeline.TagCodeMeaning, "LO", meaning(at, c))
		translateCodes(items[i].Items(pipeline.TagEquivalentCodeSequence), at)
	}
}

// isCode tells whether the code sequence at a tag of an item holds a code.
func isCode(item pipeline.Dataset, t pipeline.Tag, c code) bool {
	for _, i := range item.Items(t) {
		if i.String(pipeline.TagCodeValue) == c.Value && i.String(pipeline.TagCodingSchemeDesignator) == c.Scheme {
			return true
		}
	}
	return false
}
