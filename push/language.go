package push

import "strings"

// texts are the words of one language. A %s is an amount or a wallet's name.
type texts struct {
	approve, confirm, codeFor, confirmCardFor                 string // with %s
	code, approvePayment, confirmPayment, confirmCard         string
	approved, rejected, expired, completed, cancelled, failed string
	answered, open, card, blocked                             string
	activationTitle, activationBody, testTitle, testBody      string
	passkeyTitle, passkeyBody                                 string
}

const defaultLanguage = "en"

// languages are the texts by the primary language subtag (RFC 5646, section 2.2.1).
var languages = map[string]texts{
	"en": {
		approve: "Approve %s?", confirm: "Confirm %s", codeFor: "Your code for %s is ready", confirmCardFor: "Confirm your card for %s",
		code: "Your code is ready", approvePayment: "Payment approval needed", confirmPayment: "Payment confirmation needed", confirmCard: "Card confirmation needed",
		approved: "Approved", rejected: "Rejected", expired: "Expired", completed: "Completed", cancelled: "Cancelled", failed: "Could not be confirmed",
		answered: "Already answered", open: "Open to see it", card: "card", blocked: "Approving is blocked: the passkey failed 5 times",
		activationTitle: "Notifications are on", activationBody: "Payment approvals will appear on this device",
		testTitle: "Test notification", testBody: "Notifications work on this device",
		passkeyTitle: "A passkey was added", passkeyBody: "It can approve your payments. Remove it if it is not yours",
	},
	"de": {
		approve: "%s freigeben?", confirm: "%s bestätigen", codeFor: "Ihr Code für %s ist da", confirmCardFor: "Karte für %s bestätigen",
		code: "Ihr Code ist da", approvePayment: "Zahlungsfreigabe erforderlich", confirmPayment: "Zahlungsbestätigung erforderlich", confirmCard: "Kartenbestätigung erforderlich",
		approved: "Freigegeben", rejected: "Abgelehnt", expired: "Abgelaufen", completed: "Abgeschlossen", cancelled: "Zurückgezogen", failed: "Konnte nicht bestätigt werden",
		answered: "Bereits beantwortet", open: "Zum Ansehen öffnen", card: "Karte", blocked: "Freigabe gesperrt: Der Passkey wurde 5-mal abgelehnt",
		activationTitle: "Mitteilungen sind aktiviert", activationBody: "Zahlungsfreigaben erscheinen auf diesem Gerät",
		testTitle: "Testmitteilung", testBody: "Mitteilungen funktionieren auf diesem Gerät",
		passkeyTitle: "Ein Passkey wurde hinzugefügt", passkeyBody: "Mit ihm lassen sich Ihre Zahlungen freigeben. Entfernen Sie ihn, falls er nicht Ihrer ist",
	},
	"fr": {
		approve: "Approuver %s ?", confirm: "Confirmer %s", codeFor: "Votre code pour %s est prêt", confirmCardFor: "Confirmez votre carte pour %s",
		code: "Votre code est prêt", approvePayment: "Paiement à approuver", confirmPayment: "Paiement à confirmer", confirmCard: "Carte à confirmer",
		approved: "Approuvé", rejected: "Refusé", expired: "Expiré", completed: "Terminé", cancelled: "Annulé", failed: "Confirmation impossible",
		answered: "Réponse déjà donnée", open: "Ouvrez pour voir", card: "carte", blocked: "Approbation bloquée : la clé d’accès a échoué 5 fois",
		activationTitle: "Les notifications sont activées", activationBody: "Les paiements à approuver s’afficheront sur cet appareil",
		testTitle: "Notification de test", testBody: "Les notifications fonctionnent sur cet appareil",
		passkeyTitle: "Une clé d’accès a été ajoutée", passkeyBody: "Elle permet d’approuver vos paiements. Supprimez-la si ce n’est pas la vôtre",
	},
	"es": {
		approve: "¿Aprobar %s?", confirm: "Confirmar %s", codeFor: "Su código para %s está listo", confirmCardFor: "Confirme su tarjeta para %s",
		code: "Su código está listo", approvePayment: "Pago por aprobar", confirmPayment: "Pago por confirmar", confirmCard: "Tarjeta por confirmar",
		approved: "Aprobado", rejected: "Rechazado", expired: "Caducado", completed: "Completado", cancelled: "Cancelado", failed: "No se pudo confirmar",
		answered: "Ya se respondió", open: "Abra para verlo", card: "tarjeta", blocked: "Aprobación bloqueada: la llave de acceso falló 5 veces",
		activationTitle: "Las notificaciones están activadas", activationBody: "Los pagos por aprobar aparecerán en este dispositivo",
		testTitle: "Notificación de prueba", testBody: "Las notificaciones funcionan en este dispositivo",
		passkeyTitle: "Se añadió una clave de acceso", passkeyBody: "Puede aprobar sus pagos. Elimínela si no es suya",
	},
	"zh": {
		approve: "批准 %s？", confirm: "确认 %s", codeFor: "%s 的验证码已就绪", confirmCardFor: "请为 %s 确认您的银行卡",
		code: "验证码已就绪", approvePayment: "有付款待批准", confirmPayment: "有付款待确认", confirmCard: "有银行卡待确认",
		approved: "已批准", rejected: "已拒绝", expired: "已过期", completed: "已完成", cancelled: "已取消", failed: "未能确认",
		answered: "已答复", open: "打开查看", card: "银行卡", blocked: "已停止批准：通行密钥验证失败 5 次",
		activationTitle: "通知已开启", activationBody: "付款批准请求将显示在此设备上",
		testTitle: "测试通知", testBody: "此设备可以收到通知",
		passkeyTitle: "已添加通行密钥", passkeyBody: "它可以批准您的付款。如果不是您添加的，请将其移除",
	},
}

// Language is the language that notifications are written in for a device that
// asks for tag (BCP 47, such as "de-AT"): en, de, fr, es or zh; en for every other.
func Language(tag string) string {
	primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
	if _, known := languages[primary]; known {
		return primary
	}
	return defaultLanguage
}

func textsFor(lang string) texts { return languages[Language(lang)] }
